// Chats, contacts and messages, and how they come and go.
import { MsgKey, createWid, me } from './ids.js';
import { OpaqueData, downloadAndMaybeDecrypt, uploadMedia } from './media.js';
import { Collection, Model } from './model.js';
import { send } from './wire.js';

const READ = 3;

export class ContactModel extends Model {
  get formattedName() {
    return this.name ?? this.pushname ?? `+${this.id?.user}`;
  }
}

export class MsgModel extends Model {
  // A client may look at what all messages inherit from, which is none.
  get senderObj() {
    return Contact.get(this.author ?? this.from);
  }

  get chat() {
    return Chat.get(this.id?.remote);
  }

  get isSentByMe() {
    return this.id?.fromMe;
  }

  canReply() {
    return true;
  }

  /** What a reply to it says of it. */
  msgContextInfo() {
    const { body, type, caption, mimetype } = this;
    return {
      quotedMsg: { body, type, caption, mimetype },
      quotedStanzaID: this.id.id,
      quotedParticipant: this.author ?? this.from,
      quotedRemoteJid: this.id.remote,
    };
  }

  async downloadMedia() {
    this.mediaData.mediaBlob ??= await OpaqueData.createFromData(await downloadAndMaybeDecrypt(this), this.mimetype);
    return this.mediaData;
  }
}

export class ChatModel extends Model {
  msgs = new Collection(MsgModel);

  get formattedTitle() {
    return this.contact?.formattedName;
  }

  get contact() {
    return this.id === undefined ? undefined : contactOf(this.id);
  }

  serialize() {
    return { ...super.serialize(), formattedTitle: this.formattedTitle, msgs: this.msgs.map(one => one.id) };
  }

  async onEmptyMRM() {}

  async loadEarlierMsgs() {
    return [];
  }
}

export class MsgCollection extends Collection {}
export class ChatCollection extends Collection {}
export class ContactCollection extends Collection {}
export const Msg = new MsgCollection(MsgModel);
export const Chat = new ChatCollection(ChatModel);
export const Contact = new ContactCollection(ContactModel);
// The original's names of their kinds.
Object.assign(MsgModel.prototype, { proxyName: 'msg' });
Object.assign(ChatModel.prototype, { proxyName: 'chat' });
Object.assign(ContactModel.prototype, { proxyName: 'contact' });
Msg.getMessagesById = async ids => ({ messages: ids.map(id => Msg.get(id)).filter(Boolean) });
Contact.find = async id => contactOf(createWid(id));
Contact.getMeContact = () => contactOf(me());
Chat.find = async id => chatOf(createWid(id));

function contactOf(id) {
  const known = Contact.get(id);
  if (known !== undefined) return known;
  const contact = new ContactModel({ id, type: 'in', isMyContact: false, isContactBlocked: false });
  contact.live(Contact);
  Contact.add(contact);
  return contact;
}

export function chatOf(id) {
  const known = Chat.get(id);
  if (known !== undefined) return known;
  const chat = new ChatModel({ id, t: 0, unreadCount: 0, archive: false, pin: 0, mute: { expiration: 0 }, isReadOnly: false });
  chat.live(Chat);
  Chat.add(chat);
  return chat;
}

function keep(values) {
  const msg = new MsgModel(values);
  msg.live(Msg);
  const chat = chatOf(msg.id.remote);
  if (Msg.get(msg.id) !== undefined) return null;
  chat.msgs.add(msg);
  chat.set({ t: msg.t, lastReceivedKey: msg.id });
  Msg.add(msg);
  return msg;
}

/** A message as the other side has it: one that is new, or one of before that this page has not seen. */
export function arrive({ id, chat, from_me: fromMe, body, type, t, ack, name, media, quoted }, isNewMsg) {
  const remote = createWid(chat);
  const key = new MsgKey({ fromMe, remote, id });
  if (name != null) contactOf(remote).set({ pushname: name, notifyName: name });
  const quotedKey = quoted == null ? null : MsgKey.fromString(quoted);
  const msg = keep({
    id: key,
    body,
    type,
    t,
    ack,
    isNewMsg,
    from: fromMe ? me() : remote,
    to: fromMe ? remote : me(),
    self: fromMe ? 'out' : 'in',
    notifyName: name ?? '',
    ...quotedKey === null ? {} : Msg.get(quotedKey)?.msgContextInfo(),
    ...media == null ? {} : {
      caption: body,
      directPath: media.path,
      mimetype: media.mimetype,
      filename: media.filename,
      size: media.size,
      filehash: media.sha256,
      encFilehash: media.sha256,
      mediaKey: media.sha256,
      mediaKeyTimestamp: t,
      isGif: false,
      mediaData: new Model({ type, mimetype: media.mimetype, size: media.size, mediaStage: 'RESOLVED' }),
      mediaObject: {},
    },
  });
  if (msg !== null && isNewMsg && !fromMe) {
    const known = Chat.get(remote);
    known.set({ unreadCount: known.unreadCount + 1 });
  }
}

/** By their ids: messages that were sent and that nobody has acknowledged. */
const waiting = new Map();

/** Into the chat at once, and to the phone: what resolves are two promises, as the original has them. */
export function addAndSendMsgToChat(chat, values) {
  const { mediaBlob, ...kept } = values;
  const msg = keep(mediaBlob === undefined ? kept : { ...kept, mediaData: kept.mediaData ?? new Model({ mediaStage: 'RESOLVED' }) });
  if (msg === null) throw new Error(`There is a message ${values.id} already.`);
  const { id, body, type, t } = msg;
  const media = msg.directPath == null ? null : {
    path: msg.directPath, mimetype: msg.mimetype, filename: msg.filename ?? null, size: msg.size, sha256: msg.filehash,
  };
  const quoted = msg.quotedStanzaID == null ? null
    : new MsgKey({ fromMe: me().equals(msg.quotedParticipant), remote: chat.id, id: msg.quotedStanzaID })._serialized;
  const message = { id: id.id, chat: chat.id._serialized, body: (media === null ? body : msg.caption) ?? '', type, t, media, quoted };
  const sent = new Promise(done => waiting.set(id._serialized, { message, done }));
  send('message', { message });
  return [Promise.resolve(msg), sent];
}

/** What a client has prepared, once it is prepared and kept: what comes of it is as of a text. */
export async function sendMediaToChat(prepared, chat, { caption, productMsgOptions }) {
  const media = await prepared;
  const { filehash, mediaBlob } = media;
  const { mediaEntry } = await uploadMedia({ mimetype: media.mimetype, mediaObject: { filehash, mediaBlob } });
  const { directPath, mediaKey, encFilehash } = mediaEntry;
  const [, sent] = addAndSendMsgToChat(chat, { ...productMsgOptions, ...media, caption, directPath, mediaKey, encFilehash });
  return await sent;
}

/** What no phone has answered yet, after the socket was away. */
export function sendAgain() {
  for (const { message } of waiting.values()) send('message', { message });
}

/** A message that this page has sent has come so far: 1 to the server, 2 to a phone, 3 read there. */
export function acknowledged(id, ack, t) {
  const { done } = waiting.get(id) ?? {};
  waiting.delete(id);
  Msg.get(id)?.set({ ack });
  done?.({ messageSendResult: 'OK', t });
}

export async function seen(chat) {
  for (const msg of chat.msgs.filter(one => !one.id.fromMe)) msg.ack = READ;
  chat.set({ unreadCount: 0 });
}
