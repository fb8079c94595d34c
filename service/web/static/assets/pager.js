// Which cards are in sight: those that are wanted, in the order that was chosen, a page at a time.

const ON_A_PAGE = 48; // cards; more would be a page that nobody scrolls through
const MANY = 12; // cards; of more than these each shows its answer alone

/** Keeps the cards and shows a page of them; wanted(card) says which. */
export class Pager {
  #list = document.getElementById("cards");
  #bar = document.getElementById("pager");
  #place = document.getElementById("place");
  #steps = { back: document.getElementById("previous"), on: document.getElementById("next") };
  #wanted;
  #cards = []; // the newest first
  #rank = null;
  #page = 0;
  #due = false;

  constructor(wanted) {
    this.#wanted = wanted;
    this.#steps.back.addEventListener("click", () => this.#turn(-1));
    this.#steps.on.addEventListener("click", () => this.#turn(1));
  }

  /** Put new cards before the others, and show them. */
  prepend(cards) {
    this.#cards.unshift(...cards);
    this.first();
  }

  /** Show the first page. */
  first() {
    this.#page = 0;
    this.show();
  }

  /** Sort the cards by rank(card), the lowest first; where that is null, leave them in the order in which they came. */
  sort(rank) {
    this.#rank = rank;
    this.first();
  }

  clear() {
    this.#cards = [];
    this.first();
  }

  /** Show what is to be in sight now, once for all that happens until the browser draws. */
  showSoon() {
    if (this.#due) return;
    this.#due = true;
    requestAnimationFrame(() => this.#due && this.show());
  }

  show() {
    this.#due = false;
    const wanted = this.#cards.filter(this.#wanted);
    if (this.#rank) wanted.sort((one, other) => this.#rank(one) - this.#rank(other));
    this.#page = Math.max(0, Math.min(this.#page, Math.ceil(wanted.length / ON_A_PAGE) - 1));
    const begin = this.#page * ON_A_PAGE;
    const shown = wanted.slice(begin, begin + ON_A_PAGE);
    this.#list.classList.toggle("many", wanted.length > MANY);
    this.#replace(shown);
    this.#bar.hidden = wanted.length <= ON_A_PAGE;
    this.#steps.back.disabled = this.#page === 0;
    this.#steps.on.disabled = begin + ON_A_PAGE >= wanted.length;
    const place = this.#bar.hidden ? "" : `${begin + 1} to ${begin + shown.length} of ${wanted.length}`;
    if (this.#place.textContent !== place) this.#place.textContent = place;
  }

  /** Put the cards of a page into the list, unless they are there: moving them would take the focus away. */
  #replace(shown) {
    const { children } = this.#list;
    if (children.length === shown.length && shown.every((card, index) => children[index] === card)) return;
    const focused = document.activeElement;
    this.#list.replaceChildren(...shown);
    if (focused !== document.activeElement && this.#list.contains(focused)) focused.focus({ preventScroll: true });
  }

  #turn(pages) {
    this.#page += pages;
    this.show();
    this.#list.focus({ preventScroll: true }); // so that the keyboard goes on from the first card
    document.getElementById("results").scrollIntoView();
  }
}
