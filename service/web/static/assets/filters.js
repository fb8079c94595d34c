// Buttons that leave only the cards of one kind in sight, for when there are many.

import { doubt } from "./doubt.js";

const FEWEST = 8; // cards; as many can be seen at a glance
const MOST = 12; // buttons of labels; the others come by one more button
const ALL = Symbol("all");
const UNSURE = Symbol("not sure");
const DIFFERENT = Symbol("versions differ");
const NO_LABEL = Symbol("no label");
const UNANSWERED = Symbol("not answered");
const FIRST = [ALL, UNSURE, DIFFERENT];
const LAST = [NO_LABEL, UNANSWERED];

/** Return the likeliest label of a picture; of several it may have none. */
function likeliest({ labels, predictions }) {
  return (labels ?? predictions)[0]?.label ?? NO_LABEL;
}

/** Counts what came of the cards; changed() is called when other cards are wanted than before. */
export class Filters {
  #group = document.getElementById("filters");
  #more = document.getElementById("more-filters");
  #buttons = new Map(); // kind -> its button
  #counts = new Map(); // kind -> cards
  #kinds = new WeakMap(); // card -> its kinds
  #only = ALL;
  #changed;

  constructor(changed) {
    this.#changed = changed;
    this.#more.addEventListener("click", () => {
      const opens = this.#more.ariaExpanded !== "true";
      this.#more.ariaExpanded = String(opens);
      this.arrange();
    });
  }

  /** Note what came of a card. */
  add(card, outcome) {
    const kind = outcome.predictions ? likeliest(outcome) : UNANSWERED;
    const kinds = [ALL, kind, ...(doubt(outcome) ? [UNSURE] : [])];
    this.#kinds.set(card, kinds);
    for (const each of kinds) this.#count(each);
    this.#group.hidden = this.#counts.get(ALL) <= FEWEST;
  }

  /** Note that two versions answer differently to the picture of a card that was added. */
  addDifferent(card) {
    this.#kinds.get(card).push(DIFFERENT);
    this.#count(DIFFERENT);
  }

  /** Say whether a card is one of those that were asked for. */
  wants(card) {
    return this.#only === ALL || (this.#kinds.get(card)?.includes(this.#only) ?? false);
  }

  showAll() {
    this.#show(ALL);
  }

  /** Put the buttons in order: what is to be looked at, then the labels, the most frequent first. */
  arrange() {
    const focused = document.activeElement;
    const labels = [...this.#buttons.keys()].filter((kind) => typeof kind === "string");
    labels.sort((one, other) => this.#counts.get(other) - this.#counts.get(one) || one.localeCompare(other));
    const opened = this.#more.ariaExpanded === "true";
    for (const [place, label] of labels.entries()) {
      this.#buttons.get(label).hidden = place >= MOST && !opened && label !== this.#only;
    }
    this.#more.hidden = labels.length <= MOST;
    this.#more.textContent = opened ? "fewer labels" : `${labels.length - MOST} more labels`;
    const of = (kinds) => kinds.map((kind) => this.#buttons.get(kind)).filter(Boolean);
    this.#group.replaceChildren(...of(FIRST), ...of(labels), this.#more, ...of(LAST));
    if (focused !== document.activeElement && this.#group.contains(focused)) focused.focus({ preventScroll: true });
  }

  clear() {
    this.#buttons.clear();
    this.#counts.clear();
    this.#more.ariaExpanded = "false";
    this.#only = ALL;
    this.arrange();
    this.#group.hidden = true;
  }

  #count(kind) {
    this.#counts.set(kind, (this.#counts.get(kind) ?? 0) + 1);
    if (!this.#buttons.has(kind)) this.#makeButton(kind);
    const name = typeof kind === "symbol" ? kind.description : kind;
    this.#buttons.get(kind).textContent = `${name} ${this.#counts.get(kind)}`;
  }

  #makeButton(kind) {
    const button = document.createElement("button");
    button.type = "button";
    button.ariaPressed = String(kind === this.#only);
    button.addEventListener("click", () => this.#show(kind));
    this.#buttons.set(kind, button);
    button.hidden = typeof kind === "string" && this.#buttons.size > MOST; // until they are arranged
    this.#group.append(button);
  }

  #show(kind) {
    this.#only = kind;
    for (const [other, button] of this.#buttons) button.ariaPressed = String(other === kind);
    this.#changed();
  }
}
