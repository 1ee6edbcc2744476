// Modules that clients find by what they have, and not by their names: wa-js looks through all of them.
import {
  Chat, ChatCollection, ChatModel, Contact, ContactCollection, ContactModel, Msg, MsgCollection, MsgModel,
} from './chats.js';
import { Cmd } from './link.js';
import { marked } from './login.js';
import { Collection, Emitter } from './model.js';

const words = (...names) => Object.fromEntries(names.map(name => [name, name]));
const receipt = async () => {};

/** A collection in a module of its own, with the class that it is of. */
function kept(name, collection, its) {
  return [`WAWeb${name}Collection`, { [`${name}Collection`]: collection, [`${name}CollectionImpl`]: its }];
}

function empty(name) {
  const its = class extends Collection {};
  return kept(name, new its(), its);
}

/** One that is looked for under either name, and never for its class. */
function alone(name) {
  return [`WAWeb${name}Collection`, { [`${name}Collection`]: new Collection() }];
}

export const shapes = {
  ...Object.fromEntries([
    kept('Msg', Msg, MsgCollection),
    kept('Chat', Chat, ChatCollection),
    kept('Contact', Contact, ContactCollection),
    ...['Blocklist', 'BusinessProfile', 'GroupMetadata', 'ProfilePicThumb', 'QuickReply', 'Reactions', 'StatusV3', 'Sticker'].map(empty),
    ...['Cart', 'Catalog', 'Label', 'MsgInfo', 'Mute', 'Order', 'PinInChat', 'Presence', 'TextStatus'].map(alone),
  ]),
  WAWebMsgModel: { Msg: MsgModel },
  WAWebChatModel: { Chat: ChatModel },
  WAWebContactModel: { Contact: ContactModel },
  WAWebAuthState: { isLoggedIn: marked, isRegistered: marked },
  WAWebCmdImpl: { Cmd, CmdImpl: Emitter },
  WAWebBackendEventBus: { BackendEventBus: new Emitter(), BackendEvent: {} },
  WAWebNetworkStatus: { default: Object.assign(new Emitter(), { online: true, checkOnline: () => true }) },
  WAWebSocketConstants: {
    SOCKET_STATE: words('UNLAUNCHED', 'OPENING', 'PAIRING', 'UNPAIRED', 'UNPAIRED_IDLE', 'CONNECTED', 'TIMEOUT', 'CONFLICT', 'PROXYBLOCK',
      'TOS_BLOCK', 'SMB_TOS_BLOCK', 'DEPRECATED_VERSION'),
    SOCKET_STREAM: words('DISCONNECTED', 'SYNCING', 'RESUMING', 'CONNECTED'),
    WATCHED_SOCKET_STATE: {},
  },
  WAWebAck: { ACK: { CLOCK: 0, SENT: 1, RECEIVED: 2, READ: 3, PLAYED: 4 }, ACK_STRING: words('sender', 'delivery', 'read'), EDIT_ATTR: {} },
  WAWebMsgGetters: { getIsUnreadType: msg => !msg.id.fromMe },
  WAWebLid1X1MigrationUtils: { Lid1X1MigrationUtils: { isLidMigrated: () => false } },
  WAWebABProps: { getABPropConfigValue: () => undefined },
  WATimeUtils: { unixTime: () => Math.floor(Date.now() / 1000), unixTimeMs: () => Date.now() },
  WAWebHandleSimpleReceipt: {
    handleChatSimpleReceipt: receipt, handleGroupSimpleReceipt: receipt, handleStatusSimpleReceipt: receipt,
  },
};
