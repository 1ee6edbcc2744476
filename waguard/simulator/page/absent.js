// Modules that clients ask for when they are loaded, and that the simulator has only by name.

const NAMES = new Set(`
  WADeprecatedSendIq WAJids WAMediaCalculateFilehash WAPhoneFindCC WAPhoneUtils WASmaxGroupsAddParticipantsRPC
  WASmaxGroupsMembershipRequestsActionRPC WAWap WAWebAddWebpMetadata WAWebApiDeviceList
  WAWebApiMembershipApprovalRequestStore WAWebApiMessageInfoStore WAWebBizGatingUtils WAWebBizOrderBridge
  WAWebBizProductCatalogBridge WAWebBlockContactAction WAWebBlockContactUtils WAWebBotMessageSecret
  WAWebBotProfileCollection WAWebChangeNewsletterOwnerAction WAWebChatClearBridge WAWebChatForwardMessage
  WAWebChatMessageSearch WAWebChatSendMessages WAWebContactProfilePicThumbBridge WAWebContactStatusBridge
  WAWebCountriesNativeCountryNames WAWebDeleteChatAction WAWebDeleteContactAction WAWebDemoteNewsletterAdminAction
  WAWebDrawerManager WAWebEditNewsletterMetadataAction WAWebExitGroupAction WAWebFindCommonGroupsContactAction
  WAWebForwardMessagesToChat WAWebFrontendVcardUtils WAWebGenerateEventCallLink WAWebGroupCreateJob
  WAWebGroupInviteJob WAWebGroupInviteV4Job WAWebGroupModifyInfoJob WAWebGroupQueryJob WAWebImageUtils WAWebJidToWid
  WAWebLoadNewsletterPreviewChatAction WAWebMediaInMemoryBlobCache WAWebMediaUpdateMsg WAWebMexAcceptNewsletterAdminInviteJob
  WAWebMexFetchGroupInviteCodeJob WAWebMexFetchNewsletterSubscribersJob WAWebMexRevokeNewsletterAdminInviteJob
  WAWebModifyParticipantsGroupAction WAWebMsgActionCapability WAWebMsgDataFromModel WAWebNewsletterCreateQueryJob
  WAWebNewsletterDeleteAction WAWebNewsletterDemoteAdminJob WAWebNewsletterDirectorySearchAction
  WAWebNewsletterGatingUtils WAWebNewsletterMetadataQueryJob WAWebNewsletterModelUtils WAWebNewsletterSendMessageJob
  WAWebNewsletterSendMsgAction WAWebNewsletterSubscribeAction WAWebNewsletterSubscriberListAction
  WAWebNewsletterToggleMuteStateJob WAWebNewsletterUnsubscribeAction WAWebNewsletterUpdateMsgsRecordsJob
  WAWebNewsletterUpdateUserSettingJob WAWebNonMessageDataRequestPlaceholderMessageResendUtils WAWebNoteAction
  WAWebPhoneUtils WAWebPinInChatSchema WAWebPinMsgConstants WAWebPollsSendVoteMsgAction WAWebPollsVotesSchema
  WAWebRevokeStatusAction WAWebSaveContactAction WAWebSendEventEditMsgAction WAWebSendEventResponseMsgAction
  WAWebSendMessageEditAction WAWebSendPinMessageAction WAWebSendReactionMsgAction WAWebSendStatusMsgAction
  WAWebSetPropertyGroupAction WAWebSetPushnameConnAction WAWebStartMediaUploadQpl WAWebStatusGatingUtils
  WAWebUploadManager WAWebUserPrefsGeneral WAWebUserPrefsNotifications WAWebVcardGetNameFromParsed
  WAWebVcardParsingUtils WAWebWidToJid mediaTypeFromProtobuf typeAttributeFromProtobuf
`.trim().split(/\s+/));

/** Whether the original has a module of this name that is a name only here. */
export const isAbsent = name => NAMES.has(name);

/** Has whatever is asked of it; what is called of that says that it is not simulated. */
export const absent = module => new Proxy({}, {
  get(own, key) {
    if (Object.hasOwn(own, key) || typeof key === 'symbol' || key === 'then') return own[key];
    return () => {
      throw new Error(`The simulator does not have ${module}.${key}`);
    };
  },
});
