// What a fault lays over the page.
import { faults } from './faults.js';
import { Socket, truth } from './link.js';
import { send } from './wire.js';

const DIALOGS = {
  whats_new: ['What’s new on WhatsApp Web', 'Continue'],
  whats_new_stuck: ['What’s new on WhatsApp Web', 'Continue'],
  use_here: ['WhatsApp is open in another window. Click “Use Here” to use WhatsApp in this window.', 'Use Here'],
  update: ['An update of WhatsApp Web is available', 'Update'],
  unknown: ['Something that nobody has heard of', 'Perhaps'],
  required: ['Use your passkey to link this device', 'Use passkey'],
  confirmation: ['Confirm your passkey on your phone to link this device', 'Cancel'],
  timelock: ['Your account is restricted: you cannot start new chats for 23 hours', 'OK'],
  capping: ['You have reached your limit of new chats for this month', 'OK'],
};
let covered = null;
let unlinking = 0;
let unlink = 0;
const clicked = new Set();

/** A dialog about what is new unlinks after so many seconds from now on. */
export function unlinkAfter(seconds) {
  unlink = seconds;
}

/** Lay a dialog over everything, or take it away. */
function cover(kind) {
  if (kind === covered || clicked.has(kind)) return;
  covered = kind;
  clearTimeout(unlinking);
  document.getElementById('cover')?.remove();
  if (kind === null) return;
  const [text, button] = DIALOGS[kind];
  const dialog = document.getElementById('dialog').content.cloneNode(true);
  dialog.querySelector('h1').textContent = text;
  dialog.querySelector('button').textContent = button;
  if (!kind.endsWith('_stuck')) {
    dialog.querySelector('button').onclick = () => {
      cover(null);
      clicked.add(kind);
    };
  }
  document.body.append(dialog);
  if (kind.startsWith('whats_new')) unlinking = setTimeout(() => send('logout'), unlink * 1000);
}

/** What lies over the page now, by its faults. */
export function coverAsAsked() {
  const paired = truth.state === 'PAIRING' ? faults.get('passkey') : null;
  const synced = Socket.hasSynced ? faults.get('dialog') ?? faults.get('restricted') : null;
  if (!faults.has('dialog')) clicked.clear();
  cover(paired ?? synced ?? null);
}
