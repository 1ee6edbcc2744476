// Linking by phone number: a code on screen that somebody enters on the phone.
import { link } from './link.js';
import { app, show } from './screens.js';
import { send } from './wire.js';

let asked = null;

/** The code, once there is one. Rejects where the number is none, or has had too many. */
export function startAltLinkingFlow(phone) {
  return new Promise((resolve, reject) => {
    asked?.reject(new Error('asked again'));
    asked = { resolve, reject };
    if (!send('code', { phone })) refused('offline');
  });
}

export function came(code) {
  link({ state: 'UNPAIRED', mode: 'QR' });
  show('code');
  const shown = app.querySelector('[data-link-code]');
  shown.dataset.linkCode = [...code].join(',');
  shown.textContent = `${code.slice(0, 4)}-${code.slice(4)}`;
  app.querySelector('button').onclick = toQrCode;
  asked?.resolve(code);
  asked = null;
}

export function refused(reason) {
  asked?.reject(new Error(reason));
  asked = null;
}

export function toQrCode() {
  send('refs');
}
