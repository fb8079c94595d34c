// The line that says which model answers.

const AGAIN = 5; // seconds until a service without a model is asked again
const EXACT = 1000; // images that need no interval beside their accuracy
const WHOLE = new Intl.NumberFormat("en");

/** Asks for the model and shows it; ready(model) is called with what the service tells of it. */
export class ModelLine {
  #line = document.getElementById("model");
  #known = document.getElementById("known");
  #ready;
  #shown = null; // "name/version"
  #query = "";
  #again = 0; // a timer
  /** Whether the model that is shown can tell why it answers so. */
  explains = false;

  constructor(ready) {
    this.#ready = ready;
  }

  /** Ask for the model that is meant by a query, the same as before where there is none. */
  async ask(query = this.#query) {
    this.#query = query;
    clearTimeout(this.#again);
    const model = await fetched(query);
    if (query !== this.#query) return; // another one was chosen meanwhile
    if (model?.version) {
      this.#show(model);
      return;
    }
    const reason = model ? `No model can answer yet. ${model.reason ?? ""}` : "The service cannot be reached.";
    this.#say(`${reason} Trying again every ${AGAIN} seconds.`);
    this.#again = setTimeout(() => this.ask(), AGAIN * 1000);
  }

  /** Show the version that answered, where that is another one: a new one, or one of those that share the requests. */
  async answeredBy({ name, version }) {
    if (this.#shown === null || this.#shown === `${name}/${version}`) return;
    this.#shown = null;
    const query = this.#query;
    const model = await fetched(`?${new URLSearchParams({ model: name, version })}`);
    if (query !== this.#query) return; // another one was chosen meanwhile
    if (model?.version) this.#show(model);
    else this.ask();
  }

  #show(model) {
    this.#shown = `${model.name}/${model.version}`;
    this.explains = model.explains;
    const share = model.task === "multi-label" ? ranked(model) : accuracy(model);
    this.#say(`${model.name}, version ${model.version}: ${share}.`);
    this.#known.querySelector("summary").textContent = `The ${WHOLE.format(model.labels.length)} labels it knows`;
    this.#known.querySelector("ul").replaceChildren(...model.labels.map(item));
    this.#known.hidden = false;
    document.getElementById("report").hidden = false;
    this.#ready(model);
  }

  /** Change the line only where it says something new, which screen readers then read out. */
  #say(text) {
    if (this.#line.textContent !== text) this.#line.textContent = text;
  }
}

/** Return what the service says of its model, or why it says nothing; null where it cannot be reached. */
async function fetched(query) {
  try {
    const response = await fetch(`model${query}`);
    const answer = await response.json();
    return response.ok ? answer : { reason: answer.message };
  } catch {
    return null;
  }
}

function accuracy({ metrics: { accuracy: share, images, measured_on: on }, accuracy_95: interval }) {
  if (!images) return "its accuracy was not measured";
  const [low, high] = interval.map((bound) => (100 * bound).toFixed(1));
  const details = images < EXACT ? `${on}; 95%: ${low} to ${high}` : on;
  return `right on ${(100 * share).toFixed(2)}% of ${WHOLE.format(images)} images (${details})`;
}

/** Return the same of a model that tells several labels of a picture. */
function ranked({ metrics: { images, measured_on: on }, multi_label: found }) {
  if (!images || !found) return "what it gets right was not measured";
  const precision = found.mean_average_precision.toFixed(3);
  return `mean average precision ${precision} on ${WHOLE.format(images)} images (${on}); a picture may have several labels`;
}

function item(label) {
  const entry = document.createElement("li");
  entry.textContent = label;
  return entry;
}
