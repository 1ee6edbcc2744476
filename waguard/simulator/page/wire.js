// The one socket that carries everything.

let socket = null;
let retries = 0;
let retry = 0;
let heard = null;
let dropped = null;

/** Who hears each message, and who is told of an end with whether it is one of several in a row. */
export function attend(receive, drop) {
  [heard, dropped] = [receive, drop];
}

/** Whether there was anybody to send it to. */
export function send(kind, values = {}) {
  const open = socket?.readyState === WebSocket.OPEN;
  if (open) socket.send(JSON.stringify({ kind, ...values }));
  return open;
}

export function hangUp() {
  clearTimeout(retry);
  if (socket !== null) socket.onclose = socket.onmessage = null;
  socket?.close();
  socket = null;
}

export function connect() {
  hangUp();
  socket = new WebSocket(`${location.protocol.replace('http', 'ws')}//${location.host}/ws`);
  socket.onopen = () => send('hello');
  socket.onmessage = ({ data }) => heard(JSON.parse(data));
  socket.onclose = again;
}

async function again() {
  await dropped(retries > 0);
  retry = setTimeout(connect, retries === 0 ? 0 : Math.min(125 * 2 ** retries, 5000));
  retries += 1;
}

/** The other side has answered. */
export function welcomed() {
  retries = 0;
}
