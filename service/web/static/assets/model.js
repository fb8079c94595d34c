// The line that says which model answers.

const AGAIN = 5; // seconds until a service without a model is asked again
const WHOLE = new Intl.NumberFormat("en");

/** Asks for the model and shows it; ready(labels) is called with the labels that it knows. */
export class ModelLine {
  #line = document.getElementById("model");
  #known = document.getElementById("known");
  #ready;
  #shown = null; // "name/version"

  constructor(ready) {
    this.#ready = ready;
  }

  async ask() {
    const model = await fetched();
    if (model?.version) {
      this.#show(model);
      return;
    }
    const reason = model ? `No model can answer yet. ${model.reason ?? ""}` : "The service cannot be reached.";
    this.#say(`${reason} Trying again every ${AGAIN} seconds.`);
    setTimeout(() => this.ask(), AGAIN * 1000);
  }

  /** Ask again where another version answered than the one that is shown. */
  answeredBy({ name, version }) {
    if (this.#shown === null || this.#shown === `${name}/${version}`) return;
    this.#shown = null;
    this.ask();
  }

  #show(model) {
    this.#shown = `${model.name}/${model.version}`;
    this.#say(`${model.name}, version ${model.version}: ${accuracy(model.metrics)}.`);
    this.#known.querySelector("summary").textContent = `The ${WHOLE.format(model.labels.length)} labels it knows`;
    this.#known.querySelector("ul").replaceChildren(...model.labels.map(item));
    this.#known.hidden = false;
    this.#ready(model.labels);
  }

  /** Change the line only where it says something new, which screen readers then read out. */
  #say(text) {
    if (this.#line.textContent !== text) this.#line.textContent = text;
  }
}

/** Return what the service says of its model; null where it cannot be reached. */
async function fetched() {
  try {
    const response = await fetch("model");
    return response.ok ? await response.json() : null;
  } catch {
    return null;
  }
}

function accuracy({ accuracy: share, images, measured_on: on }) {
  if (!images) return "its accuracy was not measured";
  return `right on ${(100 * share).toFixed(2)}% of ${WHOLE.format(images)} images (${on})`;
}

function item(label) {
  const entry = document.createElement("li");
  entry.textContent = label;
  return entry;
}
