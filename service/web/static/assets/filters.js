// Buttons that leave only the cards of one kind in sight, for when there are many.

const FEWEST = 8; // cards; as many can be seen at a glance
const UNANSWERED = "not answered";

/** Counts what came of the cards and hides those that were not asked for. */
export class Filters {
  #group = document.getElementById("filters");
  #cards = document.getElementById("cards");
  #buttons = new Map(); // kind -> its button; "" is all
  #counts = new Map(); // kind -> cards
  #kinds = new WeakMap(); // card -> kind
  #only = "";

  /** Note what came of a card. */
  add(card, outcome) {
    const kind = outcome.predictions ? outcome.predictions[0].label : UNANSWERED;
    this.#kinds.set(card, kind);
    this.#count("");
    this.#count(kind);
    card.hidden = !this.#wanted(card);
    this.#group.hidden = this.#counts.get("") <= FEWEST;
  }

  showAll() {
    this.#show("");
  }

  clear() {
    this.#buttons.clear();
    this.#counts.clear();
    this.#group.replaceChildren();
    this.#group.hidden = true;
    this.#only = "";
  }

  #count(kind) {
    this.#counts.set(kind, (this.#counts.get(kind) ?? 0) + 1);
    if (!this.#buttons.has(kind)) this.#makeButton(kind);
    this.#buttons.get(kind).textContent = `${kind || "all"} ${this.#counts.get(kind)}`;
  }

  #makeButton(kind) {
    const button = document.createElement("button");
    button.type = "button";
    button.ariaPressed = String(kind === this.#only);
    button.addEventListener("click", () => this.#show(kind));
    this.#buttons.set(kind, button);
    if (kind === UNANSWERED || !this.#buttons.has(UNANSWERED)) this.#group.append(button);
    else this.#buttons.get(UNANSWERED).before(button);
  }

  #show(kind) {
    this.#only = kind;
    for (const [other, button] of this.#buttons) button.ariaPressed = String(other === kind);
    for (const card of this.#cards.children) card.hidden = !this.#wanted(card);
  }

  #wanted(card) {
    return this.#only === "" || this.#kinds.get(card) === this.#only;
  }
}
