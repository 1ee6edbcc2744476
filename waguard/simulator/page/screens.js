// What is on screen.
import { Conn, link } from './link.js';
import { base64, keys } from './login.js';
import { send } from './wire.js';

export const app = document.getElementById('app');

export function show(screen) {
  app.replaceChildren(document.getElementById(`screen-${screen}`).content.cloneNode(true));
}

export function showQr(ref, rows) {
  Conn.set({ ref });
  link({ state: 'UNPAIRED', mode: 'QR' });
  show('qr');
  const canvas = app.querySelector('canvas');
  const paint = canvas.getContext('2d');
  const size = Math.floor(canvas.width / (rows.length + 8));
  const margin = Math.floor((canvas.width - size * rows.length) / 2);
  rows.forEach((row, y) => [...row].forEach((dark, x) => {
    if (dark === '1') paint.fillRect(margin + x * size, margin + y * size, size, size);
  }));
  app.querySelector('[data-ref]').dataset.ref =
    [ref, base64(keys.noise), base64(keys.identity), keys.adv, keys.platform].join(',');
}

export function showReload() {
  link({ state: 'UNPAIRED_IDLE' });
  const button = document.createElement('button');
  button.textContent = 'Click to reload QR code';
  button.onclick = () => {
    button.remove();
    send('refs');
  };
  app.querySelector('[data-ref]').append(button);
}

export function showMain(wid) {
  show('main');
  app.querySelector('[data-testid="wid"]').textContent = wid;
  Conn.set({ pushname: `Phone ${wid.split(':')[0]}` });
  app.querySelector('[data-testid="menu-logout"]').onclick = () => send('logout');
}

export function showConflict(takeover) {
  show('conflict');
  app.querySelector('[data-testid="popup-controls-ok"]').onclick = takeover;
}
