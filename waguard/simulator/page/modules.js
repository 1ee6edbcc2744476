// What the page's `require` gives, by the names of the original.
import { absent, isAbsent } from './absent.js';
import { Chat, Contact, Msg, addAndSendMsgToChat, chatOf, seen, sendMediaToChat } from './chats.js';
import { MsgKey, Wid, createWid, me } from './ids.js';
import { Cmd, Conn, Socket, Stream } from './link.js';
import { base64, keys } from './login.js';
import { OpaqueData, downloadAndMaybeDecrypt, getOrCreateMediaObject, msgToMediaType, prepRawMedia, uploadMedia } from './media.js';
import { Collection, Emitter } from './model.js';
import { startAltLinkingFlow, toQrCode } from './pairing.js';
import { shapes } from './shapes.js';
import { send } from './wire.js';

const nothing = async () => {};
const freshCodes = () => send('refs');
const getADVSecretKey = () => keys.adv;
Object.assign(Cmd, { refreshQR: freshCodes });
Object.assign(Stream, { markAvailable: () => {}, markUnavailable: () => {} });

function findLinks(text) {
  return [...String(text ?? '').matchAll(/https?:\/\/[^\s<>"]+/g)].map(([href], index) => ({ href, value: href, index }));
}

function mediaToSend(opaque, asked) {
  const preparing = prepRawMedia(opaque, asked);
  return { ...preparing, sendToChat: (chat, options) => sendMediaToChat(preparing.waitForPrep(), chat, options) };
}

class Calls extends Emitter {
  calls = new Map();

  processIncomingCall() {}
}
const calls = new Calls();

/** Not what a client has put where it inherits from, which would ask here again. */
const own = (model, name) => (Object.hasOwn(model, name) ? model[name] : undefined);
const calledBy = contact => own(contact, 'name') ?? own(contact, 'pushname') ?? `+${contact.id.user}`;

const upsert = () => ({ bulkUpsert: nothing });
const findLink = text => findLinks(text)[0];
const ofServer = server => chat => chat.id.server === server;

const modules = {
  ...shapes,
  // The link and the login.
  WAWebSocketModel: { Socket },
  WAWebStreamModel: { Stream },
  WAWebConnModel: { Conn },
  WAWebCmd: { Cmd },
  WAWebOfflineHandler: { OfflineMessageHandler: { getOfflineDeliveryProgress: () => 100 } },
  WAWebAltDeviceLinkingApi: {
    setPairingType: () => {},
    initializeAltDeviceLinking: nothing,
    startAltLinkingFlow,
    initializeQRLinking: async () => toQrCode(),
  },
  WAWebLaunchSocketUtils: { refreshQR: freshCodes },
  WABase64: { encodeB64: base64, decodeB64: text => Uint8Array.from(atob(text), letter => letter.charCodeAt(0)).buffer },
  WAWebCompanionRegClientUtils: { DEVICE_PLATFORM: keys.platform },
  // Where older builds have the secret.
  WAWebAdvSignatureApi: { getADVSecretKey, setADVSignedIdentity: nothing },
  WAWebUserPrefsInfoStore: { waNoiseInfo: { get: async () => ({ staticKeyPair: { pubKey: keys.noise } }) } },
  WAWebSignalStoreApi: {
    waSignalStore: { getRegistrationInfo: async () => ({ identityKeyPair: { pubKey: keys.identity } }) },
  },
  WAWebUserPrefsMultiDevice: { getADVSecretKey },
  WAWebMiscBrowserUtils: { info: () => ({ os: 'Linux', name: 'Chrome' }) },
  WAWebL10N: { getRegion: () => 'MX' },

  // Chats and messages.
  WAWebCollections: {
    Msg,
    Chat,
    Contact,
    ...Object.fromEntries([
      'Blocklist', 'Call', 'GroupMetadata', 'Label', 'PollVote', 'Presence', 'ProfilePicThumb', 'Reactions',
      'Status', 'WAWebNewsletterCollection', 'NewsletterCollection', 'NewsletterMetadataCollection',
    ].map(name => [name, new Collection()])),
    BusinessProfile: Object.assign(new Collection(), { fetchBizProfile: async () => ({}) }),
  },
  WAWebCallCollection: Object.assign(calls, { default: calls, CallCollectionImpl: Calls }),
  WAWebSendMsgChatAction: { addAndSendMsgToChat },
  WAWebFindChatAction: { findOrCreateLatestChat: async id => ({ chat: chatOf(createWid(id)) }) },
  // Newer builds put it into an object.
  WAWebUpdateUnreadChatAction: { sendSeen: chat => seen(chat.chat ?? chat), markUnread: nothing },
  WAWebChatLoadMessages: { loadEarlierMsgs: async () => [] },
  WAWebChatGetters: {
    getIsNewsletter: ofServer('newsletter'),
    getIsBroadcast: ofServer('broadcast'),
    getIsGroup: ofServer('g.us'),
    getIsUser: ofServer('c.us'),
  },
  WAWebGetEphemeralFieldsMsgActionsUtils: { getEphemeralFields: () => ({}) },
  WAWebMsgReply: { canReplyMsg: () => true },
  WAWebQuotedMsgModelUtils: {
    getQuotedMsgObj: ({ id, quotedStanzaID, quotedParticipant }) => Msg.get(
      new MsgKey({ fromMe: me().equals(quotedParticipant), remote: id.remote, id: quotedStanzaID }),
    ),
  },
  WAWebChatStateBridge: { sendChatStateComposing: nothing, sendChatStateRecording: nothing, sendChatStatePaused: nothing },
  WAWebPresenceChatAction: { sendPresenceAvailable: nothing, sendPresenceUnavailable: nothing },
  WAWebSendNonMessageDataRequest: { sendPeerDataOperationRequest: nothing },
  WAWebAddonReactionTableMode: { reactionTableMode: upsert() },
  WAWebAddonPollVoteTableMode: { pollVoteTableMode: upsert() },
  WAWebDBCreateOrUpdateReactions: { createOrUpdateReactions: nothing },
  WAWebSyncGatingUtils: { isPlaceholderMessageResendEnabled: () => false },
  WAWebBackendJobsCommon: { mediaTypeFromProtobuf: () => null },
  WAWebE2EProtoUtils: { typeAttributeFromProtobuf: () => 'text' },
  WALinkify: { findLinks, findLink, findFirstWebLink: text => findLink(text)?.href },
  WAWebLinkPreviewChatAction: { getLinkPreview: async () => ({}) },

  // Who is who.
  WAWebMsgKey: Object.assign(MsgKey, { default: MsgKey }),
  WAWebWid: Object.assign(Wid, { default: Wid }),
  WAWebWidFactory: {
    createWid,
    createWidFromWidLike: createWid,
    createUserWid: (user, server = 'c.us') => new Wid(user, server),
    toUserWid: createWid,
    toUserWidOrThrow: createWid,
    asUserWidOrThrow: createWid,
  },
  WAWebUserPrefsMeUser: {
    getMaybeMePnUser: me,
    getMaybeMeUser: me,
    getMeUser: me,
    getMePnUserOrThrow: me,
    getMaybeMeLidUser: () => null,
  },
  WAWebContactGetters: {
    getIsMe: contact => contact.id.equals(me()),
    getIsUser: contact => contact.id.isUser(),
    getIsGroup: contact => contact.id.isGroup(),
    getIsWAContact: contact => contact.id.isUser(),
    getUserid: contact => contact.id.user,
    getVerifiedName: () => undefined,
    getVerifiedLevel: () => undefined,
    getStatusMute: () => false,
    getName: contact => own(contact, 'name'),
    getShortName: contact => own(contact, 'name')?.split(' ')[0],
    getPushname: contact => own(contact, 'pushname'),
    getIsEnterprise: () => false,
    getIsMyContact: contact => own(contact, 'isMyContact'),
    getNotifyName: contact => own(contact, 'notifyName'),
    getMentionName: calledBy,
    ...Object.fromEntries([
      'getIsIAS', 'getIsSupportAccount', 'getCanRequestPhoneNumber', 'getShowBusinessCheckmarkAsPrimary',
      'getShowBusinessCheckmarkAsSecondary', 'getShowBusinessCheckmarkInChatlist', 'getIsDisplayNameApproved',
      'getShouldForceBusinessUpdate',
    ].map(name => [name, () => false])),
  },
  WAWebFrontendContactGetters: {
    getIsMyContact: contact => own(contact, 'isMyContact'),
    getPhoneNumber: contact => contact.id,
    getTextStatusString: () => '',
    getPnForLid: () => undefined,
    getHeader: calledBy,
    ...Object.fromEntries([
      'getDisplayName', 'getDisplayNameOrPnForLid', 'getFormattedPhone', 'getSearchName', 'getSearchVerifiedName', 'getFormattedName',
      'getFormattedShortName', 'getFormattedShortNameWithNonBreakingSpaces', 'getFormattedUser',
    ].map(name => [name, calledBy])),
  },
  WAWebApiContact: { getAlternateUserWid: () => null, getCurrentLid: () => null, getPhoneNumber: () => null },
  WAWebLidMigrationUtils: { toPn: id => id, toLid: () => null },
  WAWebQueryExistsJob: { queryWidExists: async id => ({ wid: createWid(id), biz: false }) },

  // Media.
  WAWebMediaOpaqueData: Object.assign(OpaqueData, { default: OpaqueData }),
  WAWebPrepRawMedia: { prepRawMedia: mediaToSend, uploadProductImage: nothing, MediaPrep: class {} },
  WAWebMediaStorage: { getOrCreateMediaObject },
  WAWebMmsMediaTypes: { msgToMediaType, castToV4: type => type },
  WAWebMediaMmsV4Upload: { uploadMedia, uploadUnencryptedMedia: uploadMedia },
  WAWebDownloadManager: { downloadManager: { downloadAndMaybeDecrypt } },
  WAWebMediaDataUtils: { shouldUseMediaCache: () => false },
};

// Who looks for modules by what they have goes through those that are more than a name.
modules.__debug = { modulesMap: Object.fromEntries(Object.keys(modules).map(name => [name, { factory: () => {} }])) };

function require(name) {
  if (!Object.hasOwn(modules, name)) {
    if (!isAbsent(name)) throw new Error(`Requiring unknown module "${name}"`);
    modules[name] = absent(name);
  }
  return modules[name];
}

/** What the original's loader leaves in the page. */
export const loader = {
  require,
  importNamespace: require,
  __d: () => {},
  ErrorGuard: { skipGuardGlobal: () => {} },
};
