// Why the model answered so: a heat map over the picture, in its card, for whoever asks.

import { copy } from "./cards.js";

const UNREACHED = "The connection failed: the service is not there any more.";

/** Offer in the card of a picture to show what spoke for each of the labels that it was given by a version. */
export function offerWhy(card, { file, name }, predictions, by) {
  const why = copy("why");
  const button = why.querySelector("button");
  button.ariaLabel = `Why? ${name}`; // there may be many of them
  const labels = why.querySelector("select");
  labels.replaceChildren(...predictions.map(({ label }) => new Option(label)));
  const show = () => showMap(why, file, name, labels.value, by);
  button.addEventListener("click", () => {
    const opens = button.ariaExpanded !== "true";
    button.ariaExpanded = String(opens);
    why.querySelector(".explained").hidden = !opens;
    if (opens && why.querySelector("figure").hidden) show();
  });
  labels.addEventListener("change", show);
  card.querySelector(".asides").append(why);
}

async function showMap(why, file, name, label, by) {
  const figure = why.querySelector("figure");
  const told = why.querySelector(".told-why");
  told.textContent = "Looking…";
  const answer = await asked(file, label, by);
  if (why.querySelector("select").value !== label) return; // another one was chosen meanwhile
  figure.hidden = !answer.map;
  told.textContent = answer.message ?? "";
  if (!answer.map) return;
  const image = figure.querySelector("img");
  URL.revokeObjectURL(image.src);
  image.src = URL.createObjectURL(answer.map);
  image.alt = `Heat map of what spoke for ${label} in ${name}`;
}

/** Return the map as a picture, or a message that says why there is none. */
async function asked(file, label, { name, version }) {
  const form = new FormData();
  form.append("image", file);
  try {
    const query = new URLSearchParams({ label, format: "png", model: name, version });
    const response = await fetch(`explain?${query}`, { method: "POST", body: form });
    if (response.ok) return { map: await response.blob() };
    const answer = await response.json().catch(() => null); // a proxy's error page is no JSON
    return { message: answer?.message ?? `The service answered with ${response.status}.` };
  } catch {
    return { message: UNREACHED };
  }
}
