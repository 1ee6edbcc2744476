// What faults make a page do that has them.
import { coverAsAsked, unlinkAfter } from './dialogs.js';
import { faults } from './faults.js';
import { link } from './link.js';
import { app } from './screens.js';

const grown = [];
let growth = 0;
let labour = 0;
let synced = 0;
let windows = 0;
let confirmed = () => {};

/** What a sync of a long history does, for so long and without a pause. */
function work(seconds) {
  const end = performance.now() + seconds * 1000;
  const mark = document.createElement('span');
  app.append(mark);
  while (performance.now() < end) {
    const messages = Array.from({ length: 20_000 }, (_, id) => ({ id, text: String(Math.random()) }));
    messages.sort((one, other) => one.text < other.text ? -1 : 1);
    let hash = 0x811c9dc5;
    for (const letter of JSON.stringify(messages)) hash = Math.imul(hash ^ letter.charCodeAt(0), 0x01000193);
    mark.dataset.hash = hash;
    mark.getBoundingClientRect();
  }
  mark.remove();
}

function spin() {
  while (true);
}

function getOn() {
  const bar = app.querySelector('progress');
  if (bar !== null) bar.value += (bar.max - bar.value) / 100;
}

function takeMemory(most) {
  const taken = [];
  const take = () => {
    taken.push(new Uint8Array(16 << 20).fill(1));
    if (taken.length * 16 < most) setTimeout(take);
  };
  take();
}

function goElsewhere() {
  const there = new URL(location.href);
  there.hostname = there.hostname === 'localhost' ? '127.0.0.1' : 'localhost';
  location.replace(there.href);
}

/** What a page can do to those who look at it with what they find there. */
function deceive() {
  const lists = Array(400_000).fill([]);
  const many = () => lists;
  for (const name of ['slice', 'substring', 'toString', 'valueOf']) String.prototype[name] = many;
  Document.prototype.querySelector = () => ({ getAttribute: many });
  window.requestAnimationFrame = done => setTimeout(() => done(many()));
  window.Debug = { get VERSION() { return 'x'.repeat(8_000_000); } };
}

/** A scan is not taken before this, while the fault lasts. */
export async function passkeyConfirmed() {
  coverAsAsked();
  if (faults.has('passkey')) await new Promise(done => { confirmed = done; });
}

export function suffer({ names, values, busy_s: busy, rest_s: rest, unlink_s: unlinks }) {
  unlinkAfter(unlinks);
  faults.clear();
  names.forEach(name => faults.set(name, values[name] ?? null));
  clearInterval(growth);
  if (faults.has('memory_growth')) growth = setInterval(() => grown.push(new Uint8Array(4 << 20).fill(1)), 250);
  else grown.length = 0;
  if (faults.has('busy') && labour === 0) {
    // By the clock, so that a stretch that was ended from outside is not the last one.
    labour = setInterval(() => work(busy), (busy + rest) * 1000);
    setTimeout(() => work(busy));
  } else if (!faults.has('busy')) {
    clearInterval(labour);
    labour = 0;
  }
  link({});
  clearInterval(synced);
  if (faults.get('syncing') === 'moves') synced = setInterval(getOn, 250);
  if (faults.has('reload')) location.reload();
  if (faults.has('blank')) location.replace('about:blank');
  coverAsAsked();
  if (!faults.has('passkey')) confirmed();
  clearInterval(windows);
  if (faults.has('popups')) windows = setInterval(() => window.open('about:blank'));
  if (faults.has('elsewhere')) goElsewhere();
  if (faults.has('hostile_prototype')) deceive();
  if (faults.has('memory_burst')) takeMemory(Number(faults.get('memory_burst')));
  if (faults.has('spin_until_load')) setInterval(spin);
  if (faults.has('spin_once')) setTimeout(spin);
  if (faults.has('spin')) spin();
}
