// The page's side of the stand-in: the signs, the storage and the states of WhatsApp Web, without its messages.
'use strict';
(() => {
  /** A bag of values that tells its listeners what changed, as the original's models do. */
  class Model {
    #listeners = new Map();
    constructor(values = {}) {
      Object.assign(this, values);
    }
    on(name, call) {
      this.#listeners.set(name, [...this.#listeners.get(name) ?? [], call]);
    }
    off(name, call) {
      this.#listeners.set(name, (this.#listeners.get(name) ?? []).filter(known => known !== call));
    }
    trigger(name, ...values) {
      for (const call of this.#listeners.get(name) ?? []) call(...values);
    }
    set(values) {
      for (const [name, value] of Object.entries(values)) {
        if (this[name] === value) continue;
        this[name] = value;
        this.trigger(`change:${name}`, this, value);
      }
    }
  }

  const base64 = bytes => btoa(String.fromCharCode(...new Uint8Array(bytes)));
  const random = () => crypto.getRandomValues(new Uint8Array(32));
  const keys = { noise: random(), identity: random(), adv: base64(random()), platform: '1' };
  const channel = new BroadcastChannel('simulator');
  const app = document.getElementById('app');

  const Socket = new Model({ state: 'UNLAUNCHED', stream: 'DISCONNECTED', hasSynced: undefined });
  const Stream = new Model({ mode: 'QR' });
  const Conn = new Model({ ref: undefined });
  const Cmd = new Model();
  const MODES = new Set(['CONFLICT', 'PROXYBLOCK', 'TOS_BLOCK', 'SMB_TOS_BLOCK', 'DEPRECATED_VERSION']);
  Object.assign(Socket, { logout: () => send('logout'), takeover, reconnect: connect });

  /** What the link would be, and what a fault makes of it for as long as it lasts. */
  const truth = { state: Socket.state, stream: Socket.stream, mode: Stream.mode };

  function link(values) {
    Object.assign(truth, values);
    const shown = faults.has('opening') ? 'OPENING' : faults.get('socket_state');
    const { mode, ...socket } = shown == null ? truth : {
      ...truth,
      state: shown,
      stream: shown === 'CONNECTED' ? truth.stream : 'DISCONNECTED',
      mode: MODES.has(shown) ? shown : truth.mode,
    };
    Socket.set(socket);
    Stream.set({ mode });
  }

  const modules = {
    WAWebSocketModel: { Socket },
    WAWebStreamModel: { Stream },
    WAWebConnModel: { Conn },
    WAWebCmd: { Cmd },
    WAWebOfflineHandler: { OfflineMessageHandler: { getOfflineDeliveryProgress: () => 100 } },
    WAWebAltDeviceLinkingApi: {},
    WABase64: { encodeB64: base64 },
    WAWebCompanionRegClientUtils: { DEVICE_PLATFORM: keys.platform },
    WAWebAdvSignatureApi: {},
    WAWebUserPrefsInfoStore: { waNoiseInfo: { get: async () => ({ staticKeyPair: { pubKey: keys.noise } }) } },
    WAWebSignalStoreApi: {
      waSignalStore: { getRegistrationInfo: async () => ({ identityKeyPair: { pubKey: keys.identity } }) },
    },
    WAWebUserPrefsMultiDevice: { getADVSecretKey: () => keys.adv },
  };

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
    window.Debug = { VERSION: '2.3000.0-simulator' };
    window.require = name => {
      if (!Object.hasOwn(modules, name)) throw new Error(`Requiring unknown module "${name}"`);
      return modules[name];
    };
  }

  // --- storage: both halves are needed to come up logged in -----------------------------------------

  const STORES = { wawc: 'user', wawc_db_enc: 'keys', 'signal-storage': 'signal-meta-store', 'model-storage': 'chat' };
  const MARKS = ['last-wid-md', 'WANoiseInfo', 'WANoiseInfoIv', 'WAWebEncKeySalt', 'WALid'];
  /** Name to value, which is null where a fault takes none. */
  const faults = new Map();
  const storage = window.indexedDB;
  const shown = Object.getOwnPropertyDescriptor(window, 'indexedDB');

  const settled = request => new Promise((resolve, reject) => {
    request.onsuccess = request.oncomplete = () => resolve(request.result);
    request.onerror = request.onabort = () => reject(request.error);
  });

  async function within(name, mode, use) {
    if (faults.has('storage_refused')) throw new DOMException('refused on request', 'UnknownError');
    const opening = storage.open(name, 1);
    opening.onupgradeneeded = () => opening.result.createObjectStore(STORES[name]);
    const database = await settled(opening);
    try {
      const transaction = database.transaction(STORES[name], mode, { durability: 'strict' });
      const request = use(transaction.objectStore(STORES[name]));
      await settled(transaction);
      return request.result;
    } finally {
      database.close();
    }
  }

  async function remember(wid, key) {
    const values = { wawc: wid, wawc_db_enc: random(), 'signal-storage': key, 'model-storage': 'chats' };
    await Promise.all(Object.entries(values).map(
      ([name, value]) => within(name, 'readwrite', store => store.put(value, 'main')),
    ));
    for (const mark of MARKS) localStorage.setItem(mark, JSON.stringify(base64(random())));
    localStorage.setItem('last-wid-md', JSON.stringify(wid));
  }

  const marked = () => MARKS.every(mark => localStorage.getItem(mark) !== null);
  const storedKey = () => within('signal-storage', 'readonly', store => store.get('main'));

  async function loggedOut(reason = null) {
    hangUp();
    Cmd.trigger('logout');
    localStorage.clear();
    await Promise.allSettled(Object.keys(STORES).map(name => settled(storage.deleteDatabase(name))));
    if (faults.get('strips_post_logout') === 'never_there') location.replace('/');
    else location.replace(`/?post_logout=1${reason === null ? '' : `&logout_reason=${reason}`}`);
  }

  // --- what is on screen ------------------------------------------------------------------------------

  function show(screen) {
    app.replaceChildren(document.getElementById(`screen-${screen}`).content.cloneNode(true));
  }

  function showQr(ref, rows) {
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

  function showReload() {
    link({ state: 'UNPAIRED_IDLE' });
    const button = document.createElement('button');
    button.textContent = 'Click to reload QR code';
    button.onclick = () => {
      button.remove();
      send('refs');
    };
    app.querySelector('[data-ref]').append(button);
  }

  function showMain(wid) {
    show('main');
    app.querySelector('[data-testid="wid"]').textContent = wid;
    Conn.set({ pushname: `Phone ${wid.split(':')[0]}` });
    app.querySelector('[data-testid="menu-logout"]').onclick = () => send('logout');
  }

  function conflict() {
    hangUp();
    link({ state: 'CONFLICT', stream: 'DISCONNECTED', mode: 'CONFLICT' });
    show('conflict');
    app.querySelector('[data-testid="popup-controls-ok"]').onclick = takeover;
  }

  function takeover() {
    channel.postMessage('takeover');
    show('spinner');
    connect();
  }

  // --- the one socket ---------------------------------------------------------------------------------

  let socket = null;
  let retries = 0;
  let retry = 0;

  function send(kind, values = {}) {
    if (socket?.readyState === WebSocket.OPEN) socket.send(JSON.stringify({ kind, ...values }));
  }

  function hangUp() {
    clearTimeout(retry);
    if (socket !== null) socket.onclose = socket.onmessage = null;
    socket?.close();
    socket = null;
  }

  function connect() {
    hangUp();
    socket = new WebSocket(`${location.protocol.replace('http', 'ws')}//${location.host}/ws`);
    socket.onopen = () => send('hello');
    socket.onmessage = ({ data }) => receive(JSON.parse(data));
    socket.onclose = dropped;
  }

  async function dropped() {
    await boot();
    const paired = marked();
    const offline = paired && retries > 0;
    link({ state: offline ? 'TIMEOUT' : 'OPENING', stream: 'DISCONNECTED', mode: offline ? 'OFFLINE' : truth.mode });
    if (!paired) show('spinner');
    retry = setTimeout(connect, retries === 0 ? 0 : Math.min(125 * 2 ** retries, 5000));
    retries += 1;
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
      send('login', { wid: JSON.parse(localStorage.getItem('last-wid-md')), key: await storedKey() });
    } catch {
      await loggedOut(0);
    }
  }

  const grown = [];
  let growth = 0;
  let labour = 0;

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

  let synced = 0;

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
  const clicked = new Set();

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
  function coverAsAsked() {
    const paired = truth.state === 'PAIRING' ? faults.get('passkey') : null;
    const synced = Socket.hasSynced ? faults.get('dialog') ?? faults.get('restricted') : null;
    if (!faults.has('dialog')) clicked.clear();
    cover(paired ?? synced ?? null);
  }

  let unlink = 0;
  let windows = 0;
  let confirmed = () => {};

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

  function suffer({ names, values, busy_s: busy, rest_s: rest, unlink_s: unlinks }) {
    unlink = unlinks;
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

  /** What a page finds when it loads, and not in the middle of its life. */
  function find() {
    if (faults.has('storage_refused')) Object.defineProperty(window, 'indexedDB', { ...shown, get: () => undefined });
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
        retries = 0;
        link({ state: 'OPENING' });
        await login();
        break;
      case 'qr':
        showQr(message.ref, message.rows);
        break;
      case 'qr-idle':
        showReload();
        break;
      case 'pair-success':
        link({ state: 'PAIRING' });
        show('spinner');
        coverAsAsked();
        if (faults.has('passkey')) await new Promise(done => { confirmed = done; });
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
        showMain(message.wid);
        link({ stream: 'CONNECTED', mode: 'MAIN' });
        Socket.set({ hasSynced: true });
        coverAsAsked();
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

  if (strips === 'navigates' && location.search.includes('post_logout')) {
    location.replace('/');
    return;
  }
  if (strips === 'at_once') strip();
  channel.onmessage = conflict;
  channel.postMessage('takeover');
  // Neither is there under a plain name without https.
  navigator.serviceWorker?.register('/sw.js').catch(() => {});
  navigator.storage?.persist().catch(() => {});
  connect();
})();
