// What the page's `require` gives, by the names of the original.
import { Cmd, Conn, Socket, Stream } from './link.js';
import { base64, keys } from './login.js';

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

export function require(name) {
  if (!Object.hasOwn(modules, name)) throw new Error(`Requiring unknown module "${name}"`);
  return modules[name];
}
