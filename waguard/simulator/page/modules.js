// What the page's `require` gives, by the names of the original.
import { absent, isAbsent } from './absent.js';
import { Chat, Contact, Msg, addAndSendMsgToChat, chatOf, seen } from './chats.js';
import { MsgKey, Wid, createWid, me } from './ids.js';
import { Cmd, Conn, Socket, Stream } from './link.js';
import { base64, keys } from './login.js';
import { OpaqueData, downloadAndMaybeDecrypt, getOrCreateMediaObject, msgToMediaType, prepRawMedia, uploadMedia } from './media.js';
import { Collection, Emitter } from './model.js';
import { startAltLinkingFlow, toQrCode } from './pairing.js';
import { send } from './wire.js';

const nothing = async () => {};
const freshCodes = () => send('refs');
const getADVSecretKey = () => keys.adv;
Object.assign(Cmd, { refreshQR: freshCodes });
Object.assign(Stream, { markAvailable: () => {}, markUnavailable: () => {} });

function findLinks(text) {
  return [...String(text ?? '').matchAll(/https?:\/\/[^\s<>"]+/g)].map(([href], index) => ({ href, value: href, index }));
}

const upsert = () => ({ bulkUpsert: nothing });
const findLink = text => findLinks(text)[0];
const ofServer = server => chat => chat.id.server === server;

const modules = {
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
  WABase64: { encodeB64: base64 },
  WAWebCompanionRegClientUtils: { DEVICE_PLATFORM: keys.platform },
  // Where older builds have the secret.
  WAWebAdvSignatureApi: { getADVSecretKey },
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
  WAWebContactCollection: { ContactCollection: Contact },
  WAWebCallCollection: Object.assign(new Emitter(), { calls: new Map() }),
  WAWebSendMsgChatAction: { addAndSendMsgToChat },
  WAWebFindChatAction: { findOrCreateLatestChat: async id => ({ chat: chatOf(createWid(id)) }) },
  // Newer builds put it into an object.
  WAWebUpdateUnreadChatAction: { sendSeen: chat => seen(chat.chat ?? chat) },
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
  WALinkify: { findLinks, findLink },
  WAWebLinkPreviewChatAction: { getLinkPreview: async () => ({}) },

  // Who is who.
  WAWebMsgKey: MsgKey,
  WAWebWid: Wid,
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
    getName: contact => contact.name,
    getShortName: contact => contact.name?.split(' ')[0],
    getPushname: contact => contact.pushname,
    getIsEnterprise: () => false,
    getIsMyContact: contact => contact.isMyContact,
  },
  WAWebFrontendContactGetters: { getIsMyContact: contact => contact.isMyContact },
  WAWebApiContact: { getAlternateUserWid: () => null, getCurrentLid: () => null, getPhoneNumber: () => null },
  WAWebLidMigrationUtils: { toPn: id => id, toLid: () => null },
  WAWebQueryExistsJob: { queryWidExists: async id => ({ wid: createWid(id), biz: false }) },

  // Media.
  WAWebMediaOpaqueData: OpaqueData,
  WAWebPrepRawMedia: { prepRawMedia },
  WAWebMediaStorage: { getOrCreateMediaObject },
  WAWebMmsMediaTypes: { msgToMediaType, castToV4: type => type },
  WAWebMediaMmsV4Upload: { uploadMedia, uploadUnencryptedMedia: uploadMedia },
  WAWebDownloadManager: { downloadManager: { downloadAndMaybeDecrypt } },
  WAWebMediaDataUtils: { shouldUseMediaCache: () => false },
};

export function require(name) {
  if (!Object.hasOwn(modules, name)) {
    if (!isAbsent(name)) throw new Error(`Requiring unknown module "${name}"`);
    modules[name] = absent(name);
  }
  return modules[name];
}
