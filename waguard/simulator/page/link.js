// Where the page stands with WhatsApp, in the original's models and words.
import { faults } from './faults.js';
import { Model } from './model.js';

export const Socket = new Model({ state: 'UNLAUNCHED', stream: 'DISCONNECTED', hasSynced: undefined });
export const Stream = new Model({ mode: 'QR' });
export const Conn = new Model({ ref: undefined });
export const Cmd = new Model();
const MODES = new Set(['CONFLICT', 'PROXYBLOCK', 'TOS_BLOCK', 'SMB_TOS_BLOCK', 'DEPRECATED_VERSION']);

/** What the link would be, and what a fault makes of it for as long as it lasts. */
export const truth = { state: Socket.state, stream: Socket.stream, mode: Stream.mode };

export function link(values) {
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
