// The page's life: from its load to a code, a login, its chats, and back. What it shows, keeps and suffers stands beside it.
import { acknowledged, arrive, sendAgain } from './chats.js';
import { coverAsAsked } from './dialogs.js';
import { faults } from './faults.js';
import { becomes, me } from './ids.js';
import { Cmd, Conn, Socket, link, truth } from './link.js';
import { base64, find, forget, keys, marked, remember, storedKey, storedWid } from './login.js';
import { loader } from './modules.js';
import { came, refused } from './pairing.js';
import { app, show, showConflict, showMain, showQr, showReload } from './screens.js';
import { passkeyConfirmed, suffer } from './suffering.js';
import { attend, connect, hangUp, send, welcomed } from './wire.js';

const channel = new BroadcastChannel('simulator');
let left = () => {};
Object.assign(Socket, { logout, takeover, reconnect: connect });

// In the page's own words, since the simulator's reach it only when its script has run.
const { strips } = document.documentElement.dataset;
const strip = () => {
  if (location.search.includes('post_logout')) history.replaceState(null, '', '/');
};

const sleep = ms => new Promise(resolve => setTimeout(resolve, ms));
let booting = null;

function boot() {
  booting ??= bootIn(Number(faults.get('boot') ?? 0));
  return booting;
}

async function bootIn(seconds) {
  const [bar, end] = [app.querySelector('progress'), performance.now() + seconds * 1000];
  for (let left; (left = end - performance.now()) > 0;) {
    bar.value = 100 - 90 * left / (seconds * 1000);
    await sleep(Math.min(left, 250));
  }
  if (strips === 'booted') strip();
  window.Debug = { VERSION: '2.3000.1035000000' };
  Object.assign(window, loader);
}

async function dropped(again) {
  await boot();
  refused('offline');
  const paired = marked();
  const offline = paired && again;
  link({ state: offline ? 'TIMEOUT' : 'OPENING', stream: 'DISCONNECTED', mode: offline ? 'OFFLINE' : truth.mode });
  if (!paired) show('spinner');
}

/** Resolves when the phone has let go of the device, and before the page goes. */
async function logout() {
  if (send('logout')) await new Promise(done => { left = done; });
}

async function loggedOut(reason = null) {
  hangUp();
  left();
  Cmd.trigger('logout');
  await forget();
  if (faults.get('strips_post_logout') === 'never_there') location.replace('/');
  else location.replace(`/?post_logout=1${reason === null ? '' : `&logout_reason=${reason}`}`);
}

function conflict() {
  hangUp();
  link({ state: 'CONFLICT', stream: 'DISCONNECTED', mode: 'CONFLICT' });
  showConflict(takeover);
}

function takeover() {
  channel.postMessage('takeover');
  show('spinner');
  connect();
}

let unpaired = false;
let old;

/** Whether it takes no notice of its login. What is no news to a page that loads was meant for the one before it. */
function disown(open) {
  const [until, before] = [faults.get('unpaired_with_marks'), unpaired];
  if (!open) old = until;
  const news = until !== old;
  // What is kept for the tab is gone with its browser.
  if (news && until === 'until_restart') sessionStorage.setItem('unpaired', 'yes');
  unpaired = until === 'always' || (until === 'until_reload' && news)
    || (until === 'until_restart' && sessionStorage.getItem('unpaired') !== null);
  if (!open || before || !unpaired || !marked()) return;
  link({ state: 'UNPAIRED', stream: 'DISCONNECTED', mode: 'QR' });
  Socket.set({ hasSynced: undefined });
  show('spinner');
  login();
}

async function login() {
  if (!marked() || unpaired) {
    try {
      await storedKey();
    } catch {
      show('storage-error');
      return;
    }
    send('pair', { keys: [base64(keys.noise), base64(keys.identity), keys.adv, keys.platform] });
    return;
  }
  try {
    send('login', { wid: storedWid(), key: await storedKey() });
  } catch {
    await loggedOut(0);
  }
}

async function receive(message) {
  switch (message.kind) {
    case 'faults':
      suffer(message);
      disown(true);
      break;
    case 'welcome':
      suffer(message);
      disown(truth.state !== 'UNLAUNCHED');
      if (truth.state === 'UNLAUNCHED') find();
      if (faults.has('never_loads') && truth.state === 'UNLAUNCHED') {
        hangUp();
        break;
      }
      await boot();
      welcomed();
      link({ state: 'OPENING' });
      await login();
      break;
    case 'qr':
      showQr(message.ref, message.rows);
      break;
    case 'qr-idle':
      showReload();
      break;
    case 'code':
      came(message.code);
      break;
    case 'code-refused':
      refused(message.reason);
      break;
    case 'pair-success':
      link({ state: 'PAIRING' });
      show('spinner');
      await passkeyConfirmed();
      await remember(message.wid, message.key);
      send('paired');
      break;
    case 'success':
      document.title = 'WhatsApp';
      link({ state: 'CONNECTED', stream: Socket.hasSynced ? 'RESUMING' : 'SYNCING' });
      if (!Socket.hasSynced) {
        link({ mode: 'SYNCING' });
        show('syncing');
      }
      break;
    case 'synced':
      becomes(message.wid);
      Conn.set({ wid: me(), platform: 'android', connected: true });
      message.history.forEach(one => arrive(one, false));
      showMain(message.wid);
      link({ stream: 'CONNECTED', mode: 'MAIN' });
      for (const name of ['offline_progress_update', 'offline_progress_update_from_bridge']) Cmd.trigger(name);
      Socket.set({ hasSynced: true });
      coverAsAsked();
      sendAgain();
      break;
    case 'message':
      arrive(message.message, true);
      send('received', { chat: message.message.chat, id: message.message.id });
      break;
    case 'ack':
      acknowledged(message.id, message.ack, message.t);
      break;
    case 'stream-error':
      if (message.code === 515) {
        link({ state: 'OPENING' });
        connect();
      } else if (message.code === 'conflict') conflict();
      else await loggedOut();
      break;
    case 'failure':
      await loggedOut(0);
      break;
  }
}

if (strips === 'navigates' && location.search.includes('post_logout')) location.replace('/');
else {
  if (strips === 'at_once') strip();
  channel.onmessage = conflict;
  channel.postMessage('takeover');
  // Neither is there under a plain name without https.
  (async () => navigator.serviceWorker?.register('/sw.js'))().catch(() => {}); // clients put something else there
  navigator.storage?.persist().catch(() => {});
  attend(receive, dropped);
  connect();
}
