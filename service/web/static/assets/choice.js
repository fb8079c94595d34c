// Which model and version answers, and which other version it is compared with: as people choose, kept in the address.

const SHARE = new Intl.NumberFormat("en", { style: "percent", maximumFractionDigits: 1 });
const AGAIN = 3000; // milliseconds until the service is asked again while it loads something
const at = (id) => document.getElementById(id);

/** Knows what there is to choose from, where that is more than one; changed() is called when something else is chosen. */
export class Choice {
  #models = [];
  #default = "";
  #chosen = read();
  #changed;
  #again = 0; // a timer

  constructor(changed) {
    this.#changed = changed;
    const listen = (id, chosen) => at(id).addEventListener("change", ({ target }) => this.#choose(chosen(target.value)));
    listen("which-model", (model) => ({ model, version: "", other: "" }));
    listen("which-version", (version) => ({ version, other: this.#chosen.other === version ? "" : this.#chosen.other }));
    listen("which-other", (other) => ({ other, version: this.#chosen.version || this.#first(other) }));
    addEventListener("hashchange", () => this.#take(read()));
    addEventListener("focus", () => this.load()); // somebody may have set something meanwhile
  }

  /** Ask the service what it has. */
  async load() {
    clearTimeout(this.#again);
    try {
      const response = await fetch("models");
      if (!response.ok) return;
      const { default: name, models } = await response.json();
      this.#models = models;
      this.#default = name;
      this.#take(this.#chosen);
      if (models.some(loads)) this.#again = setTimeout(() => this.load(), AGAIN);
    } catch {
      // The line on the model says that the service cannot be reached.
    }
  }

  /** What requests have in their address to ask what was chosen, from its question mark on. */
  get query() {
    return query(this.#chosen);
  }

  /** The same for the version to compare with; null where none is. */
  get otherQuery() {
    const { model, other } = this.#chosen;
    return other ? query({ model, version: other }) : null;
  }

  /** Say whether it is known that answers may come from this version. */
  knows({ name, version }) {
    return this.#models.some((model) => model.name === name && loaded(model).some((each) => each.version === version));
  }

  get #model() {
    return this.#models.find(({ name }) => name === (this.#chosen.model || this.#default));
  }

  /** Return the version that stands beside another one where people have chosen none. */
  #first(other) {
    const versions = loaded(this.#model).map(({ version }) => String(version));
    const usual = String(this.#model.version);
    return usual !== other ? usual : versions.find((version) => version !== other);
  }

  #choose(chosen) {
    this.#take({ ...this.#chosen, ...chosen });
    const address = new URLSearchParams(Object.entries(this.#chosen).filter(([, value]) => value));
    history.replaceState(null, "", address.size ? `#${address}` : location.pathname + location.search);
  }

  /** Take what was chosen as far as it is there, and show it. */
  #take(chosen) {
    const before = JSON.stringify(this.#chosen);
    this.#chosen = { ...chosen, model: chosen.model === this.#default ? "" : chosen.model };
    if (this.#models.length > 0 && !this.#model) {
      const model = this.#default ? "" : this.#models[0].name; // where none is the default, one has to be named
      this.#chosen = { model, version: "", other: "" };
    }
    if (this.#model) {
      const versions = loaded(this.#model).map(({ version }) => String(version));
      const there = (version) => (versions.includes(version) || labelled(this.#model, version) ? version : "");
      this.#chosen.version = there(this.#chosen.version);
      const other = versions.includes(this.#chosen.other) ? this.#chosen.other : "";
      this.#chosen.other = other === this.#chosen.version ? "" : other;
      if (this.#chosen.other) this.#chosen.version ||= this.#first(this.#chosen.other);
      this.#show();
    }
    if (before !== JSON.stringify(this.#chosen)) this.#changed();
  }

  #show() {
    const versions = loaded(this.#model);
    fill("model", this.#models.map(modelOption), this.#model.name, this.#models.length > 1);
    const all = versions.map((version) => new Option(named(version), version.version));
    const label = labelled(this.#model, this.#chosen.version);
    if (label) all.unshift(new Option(label, label));
    fill("version", [new Option("as the service chooses", ""), ...all], this.#chosen.version, versions.length > 1);
    const others = versions.filter(({ version }) => String(version) !== this.#chosen.version);
    const compared = others.map((version) => new Option(named(version), version.version));
    fill("other", [new Option("none", ""), ...compared], this.#chosen.other, versions.length > 1);
    at("choice").hidden = this.#models.length < 2 && versions.length < 2;
  }
}

/** Return what the address says. */
function read() {
  const told = new URLSearchParams(location.hash.slice(1));
  return Object.fromEntries(["model", "version", "other"].map((name) => [name, told.get(name) ?? ""]));
}

function query({ model, version }) {
  const told = new URLSearchParams(Object.entries({ model, version }).filter(([, value]) => value));
  return told.size ? `?${told}` : "";
}

function loaded({ versions }) {
  return versions.filter(({ state, reason }) => state === "AVAILABLE" && reason === null);
}

function loads({ state, versions }) {
  return state === "loading" || versions.some((version) => version.state === "LOADING");
}

/** Return a label of a loaded version, such as canary, that was chosen in the place of its number; else nothing. */
function labelled(model, label) {
  return loaded(model).some(({ labels }) => labels.includes(label)) ? label : undefined;
}

function modelOption({ name, state }) {
  const option = new Option(state === "ready" ? name : `${name} (${state})`, name);
  option.disabled = state === "unavailable";
  return option;
}

/** Return a version as people read it, with what it is there for. */
function named({ version, labels, share, shadow }) {
  const told = [...labels, ...(share > 0 && share < 1 ? [SHARE.format(share)] : []), ...(shadow ? ["shadow"] : [])];
  return told.length > 0 ? `${version} (${told.join(", ")})` : String(version);
}

/** Let people choose one of options, where there is something to choose; a list that is open stays so. */
function fill(what, options, value, needed) {
  const select = at(`which-${what}`);
  const html = (all) => Array.from(all, ({ outerHTML }) => outerHTML).join("");
  if (html(select.options) !== html(options)) select.replaceChildren(...options);
  select.value = value;
  select.parentElement.hidden = !needed;
}
