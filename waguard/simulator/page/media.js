// Pictures, voices and documents: prepared as the original does it, kept by the simulator, plain there.
import { Model } from './model.js';

export class OpaqueData {
  #blob;
  #url = null;

  constructor(blob, mimetype) {
    this.#blob = blob;
    this.type = mimetype || blob.type;
    this.name = blob.name;
  }

  static async createFromData(data, mimetype) {
    return new OpaqueData(data instanceof Blob ? data : new Blob([data], { type: mimetype }), mimetype);
  }

  static async createFromBase64Jpeg(text) {
    return OpaqueData.createFromData(Uint8Array.from(atob(text), letter => letter.charCodeAt(0)), 'image/jpeg');
  }

  get size() {
    return this.#blob.size;
  }

  url() {
    this.#url ??= URL.createObjectURL(this.#blob);
    return this.#url;
  }

  retain() {}

  release() {}

  autorelease() {
    if (this.#url !== null) URL.revokeObjectURL(this.#url);
    this.#url = null;
  }

  formData() {
    return this.#blob;
  }

  forceToBlob() {
    return this.#blob;
  }
}

/** Goes into the message that it is for, whole. */
class MediaData extends Model {
  toJSON() {
    return { ...this };
  }
}

function kindOf(mimetype, { asSticker, asGif, isPtt, asDocument }) {
  if (asDocument) return 'document';
  if (asSticker) return 'sticker';
  const [kind] = mimetype.split('/');
  if (kind === 'audio') return isPtt ? 'ptt' : 'audio';
  if (asGif && kind === 'video') return 'video';
  return ['image', 'video'].includes(kind) ? kind : 'document';
}

async function hashOf(opaque) {
  const hash = await crypto.subtle.digest('SHA-256', await opaque.forceToBlob().arrayBuffer());
  return btoa(String.fromCharCode(...new Uint8Array(hash)));
}

export function prepRawMedia(opaque, asked = {}) {
  const type = kindOf(opaque.type, asked);
  const prepare = async () => new MediaData({
    type,
    mimetype: opaque.type,
    filename: type === 'document' ? opaque.name : undefined,
    size: opaque.size,
    filehash: await hashOf(opaque),
    mediaBlob: opaque,
    mediaStage: 'RESOLVED',
    isGif: Boolean(asked.asGif),
  });
  const prepared = prepare();
  return { waitForPrep: () => prepared, _mediaData: new MediaData() };
}

const objects = new Map();

export function getOrCreateMediaObject(filehash) {
  if (!objects.has(filehash)) {
    const object = { filehash, contentInfo: {}, consolidate: values => Object.assign(object, values) };
    objects.set(filehash, object);
  }
  return objects.get(filehash);
}

export const msgToMediaType = ({ type }) => type;

/** Where the simulator keeps it. Raises where it takes no more. */
export async function uploadMedia({ mimetype, mediaObject }) {
  const answer = await fetch('/media', {
    method: 'POST',
    headers: { 'Content-Type': mimetype },
    body: mediaObject.mediaBlob.forceToBlob(),
  });
  if (!answer.ok) throw new Error(`upload failed: ${answer.status}`);
  const { path } = await answer.json();
  objects.delete(mediaObject.filehash);
  const { filehash } = mediaObject;
  return {
    kind: 'success',
    mediaEntry: {
      mmsUrl: new URL(path, location.href).href,
      deprecatedMms3Url: new URL(path, location.href).href,
      directPath: path,
      mediaKey: filehash,
      mediaKeyTimestamp: Math.floor(Date.now() / 1000),
      encFilehash: filehash,
      uploadHash: filehash,
    },
  };
}

/** The bytes. Raises with a `status` where they are no longer kept. */
export async function downloadAndMaybeDecrypt({ directPath }) {
  const answer = await fetch(directPath);
  if (!answer.ok) throw Object.assign(new Error(`download failed: ${answer.status}`), { status: answer.status });
  return await answer.arrayBuffer();
}
