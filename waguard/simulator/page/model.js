// Bags of values that tell their listeners what changed, as the original's models do.

export class Model {
  #listeners = new Map();

  constructor(values = {}) {
    Object.assign(this, values);
  }

  on(name, call) {
    this.#listeners.set(name, [...this.#listeners.get(name) ?? [], call]);
  }

  off(name, call) {
    this.#listeners.set(name, (this.#listeners.get(name) ?? []).filter(known => known !== call));
  }

  trigger(name, ...values) {
    for (const call of this.#listeners.get(name) ?? []) call(...values);
  }

  set(values) {
    for (const [name, value] of Object.entries(values)) {
      if (this[name] === value) continue;
      this[name] = value;
      this.trigger(`change:${name}`, this, value);
    }
  }
}
