// Who and which: the ids of people and chats, and the keys of messages.

export class Wid {
  static isXWid(id) {
    return id instanceof Wid;
  }

  constructor(user, server) {
    Object.assign(this, { server, user, _serialized: `${user}@${server}` });
  }

  isUser() {
    return this.server === 'c.us' || this.server === 'lid';
  }

  isRegularUser() {
    return this.isUser();
  }

  isRegularUserPn() {
    return this.server === 'c.us';
  }

  isLid() {
    return this.server === 'lid';
  }

  isGroup() {
    return this.server === 'g.us';
  }

  isBroadcast() {
    return this.server === 'broadcast';
  }

  isStatus() {
    return this._serialized === 'status@broadcast';
  }

  isNewsletter() {
    return this.server === 'newsletter';
  }

  isBot() {
    return this.server === 'bot';
  }

  isServer() {
    return false;
  }

  isPSA() {
    return false;
  }

  equals(other) {
    return this._serialized === other?._serialized;
  }

  toJid() {
    return this.server === 'c.us' ? `${this.user}@s.whatsapp.net` : this._serialized;
  }

  toString() {
    return this._serialized;
  }

  toJSON() {
    return this._serialized;
  }
}

const SERVERS = { 's.whatsapp.net': 'c.us' };

/** Of a text as `5215550001111@c.us`, of a device as `5215550001111:1@c.us`, or of what is like one. */
export function createWid(id) {
  const [, user, server] = /^([^@]*?)(?::\d+)?@([a-z.]+)$/.exec(id?._serialized ?? String(id)) ?? [];
  if (user === undefined) throw new Error(`wid error: invalid wid ${id}`);
  return new Wid(user, SERVERS[server] ?? server);
}

const hex = length => [...crypto.getRandomValues(new Uint8Array(length / 2))]
  .map(byte => byte.toString(16).padStart(2, '0')).join('').toUpperCase();

/** As the original, made by `new` from its parts: from, to, id, participant, selfDir. */
export class MsgKey {
  constructor(parts) {
    if (parts == null) throw new Error('MsgKey error: obj is null/undefined');
    const { fromMe, remote, from, to, id, participant, selfDir } = parts;
    this.fromMe = fromMe ?? selfDir === 'out';
    this.remote = createWid(remote ?? (this.fromMe ? to : from));
    this.id = id;
    if (participant != null) this.participant = createWid(participant);
    this._serialized = [this.fromMe, this.remote, id, ...participant == null ? [] : [this.participant]].join('_');
  }

  static newId() {
    return `3EB0${hex(18)}`;
  }

  static newId_DEPRECATED() {
    return MsgKey.newId();
  }

  static fromString(text) {
    const [fromMe, remote, id, participant] = text.split('_');
    return new MsgKey({ fromMe: fromMe === 'true', remote, id, participant });
  }

  clone() {
    return new MsgKey(this);
  }

  equals(other) {
    return this._serialized === other?._serialized;
  }

  toString() {
    return this._serialized;
  }
}

let mine = null;

/** Whose page it is, once that is known; null before. */
export const me = () => mine;

export function becomes(wid) {
  mine = createWid(wid);
}
