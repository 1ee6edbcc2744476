// Models and collections that tell their listeners what changed, as the original's do.

export class Emitter {
  #listeners = new Map();

  /** Of several names, with spaces between them, each. */
  on(names, call) {
    for (const name of names.split(' ')) this.#listeners.set(name, [...this.#listeners.get(name) ?? [], call]);
    return this;
  }

  off(names, call) {
    for (const name of names.split(' ')) {
      this.#listeners.set(name, (this.#listeners.get(name) ?? []).filter(known => known !== call && known.of !== call));
    }
    return this;
  }

  once(names, call) {
    const once = (...values) => {
      this.off(names, once);
      call(...values);
    };
    once.of = call;
    return this.on(names, once);
  }

  trigger(name, ...values) {
    for (const call of this.#listeners.get(name) ?? []) call(...values);
    if (name !== 'all') this.trigger('all', name, ...values);
  }
}

/** What may leave the page: no models within models, nothing that has methods but ids. */
const isPlain = value => value === null || (typeof value !== 'function' && (
  typeof value !== 'object' || Array.isArray(value) || '_serialized' in value
  || Object.getPrototypeOf(value) === Object.prototype));

/** As its own, whatever a client has put where it inherits from. */
function give(model, name, value) {
  Object.defineProperty(model, name, { value, writable: true, enumerable: true, configurable: true });
}

export class Model extends Emitter {
  /** The collection that hears of its changes too. */
  #home = null;

  constructor(values = {}) {
    super();
    for (const [name, value] of Object.entries(values)) give(this, name, value);
  }

  set(values) {
    let changed = false;
    for (const [name, value] of Object.entries(values)) {
      const before = this[name];
      if (before === value) continue;
      give(this, name, value);
      changed = true;
      this.trigger(`change:${name}`, this, value, before);
    }
    if (changed) this.trigger('change', this);
  }

  live(home) {
    this.#home = home;
  }

  trigger(name, ...values) {
    super.trigger(name, ...values);
    this.#home?.trigger(name, ...values);
  }

  serialize() {
    return Object.fromEntries(Object.entries(this).filter(([, value]) => isPlain(value)));
  }

  toJSON() {
    return this.serialize();
  }

  unsafe() {
    return this;
  }
}

const named = id => id?._serialized ?? String(id);

export class Collection extends Emitter {
  #models = new Map();

  constructor(modelClass = Model) {
    super();
    this.modelClass = modelClass;
  }

  get length() {
    return this.#models.size;
  }

  get _models() {
    return this.getModelsArray();
  }

  /** A model that is there already stays; true if this one is new. */
  add(model) {
    if (this.#models.has(named(model.id))) return false;
    this.#models.set(named(model.id), model);
    this.trigger('add', model);
    return true;
  }

  remove(model) {
    if (this.#models.delete(named(model.id))) this.trigger('remove', model);
  }

  get(id) {
    return this.#models.get(named(id));
  }

  getModelsArray() {
    return [...this.#models.values()];
  }

  async find(id) {
    return this.get(id);
  }

  async update(id) {
    return this.get(id);
  }

  toArray() {
    return this.getModelsArray();
  }

  forEach(call) {
    this.getModelsArray().forEach(call);
  }

  map(call) {
    return this.getModelsArray().map(call);
  }

  filter(call) {
    return this.getModelsArray().filter(call);
  }

  some(call) {
    return this.getModelsArray().some(call);
  }

  last() {
    return this.getModelsArray().at(-1);
  }
}
