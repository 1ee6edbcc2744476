// The login in the storage. Both halves are needed to come up logged in.
import { faults } from './faults.js';

export const base64 = bytes => btoa(String.fromCharCode(...new Uint8Array(bytes)));
const random = () => crypto.getRandomValues(new Uint8Array(32));
export const keys = { noise: random(), identity: random(), adv: base64(random()), platform: '1' };

const STORES = { wawc: 'user', wawc_db_enc: 'keys', 'signal-storage': 'signal-meta-store', 'model-storage': 'chat' };
const MARKS = ['last-wid-md', 'WANoiseInfo', 'WANoiseInfoIv', 'WAWebEncKeySalt', 'WALid'];
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

export async function remember(wid, key) {
  const values = { wawc: wid, wawc_db_enc: random(), 'signal-storage': key, 'model-storage': 'chats' };
  await Promise.all(Object.entries(values).map(
    ([name, value]) => within(name, 'readwrite', store => store.put(value, 'main')),
  ));
  for (const mark of MARKS) localStorage.setItem(mark, JSON.stringify(base64(random())));
  localStorage.setItem('last-wid-md', JSON.stringify(wid));
}

export async function forget() {
  localStorage.clear();
  await Promise.allSettled(Object.keys(STORES).map(name => settled(storage.deleteDatabase(name))));
}

export const marked = () => MARKS.every(mark => localStorage.getItem(mark) !== null);
export const storedWid = () => JSON.parse(localStorage.getItem('last-wid-md'));
export const storedKey = () => within('signal-storage', 'readonly', store => store.get('main'));

/** What a page finds when it loads, and not in the middle of its life. */
export function find() {
  if (faults.has('storage_refused')) Object.defineProperty(window, 'indexedDB', { ...shown, get: () => undefined });
}
