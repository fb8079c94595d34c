// What came of the pictures as a file, in the formats that the client writes.

const HEADER = ["file", "rank", "label", "probability", "error", "message", "familiar"];
const OF_TWO = ["model", "version", "agrees"]; // more columns, where versions are compared

/** Let the browser save records, as made by record(), as "csv" or "json". */
export function download(records, format) {
  const [content, type] = format === "csv" ? [csv(records), "text/csv"] : [json(records), "application/json"];
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([content], { type }));
  link.download = `darkroom.${format}`;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000); // once the browser has surely read it
}

/** Return what came of a picture: predictions by a model, or an error and its message. */
export function record({ name }, outcome, model) {
  if (!outcome.predictions) return { file: name, error: outcome.error ?? "not_answered", message: outcome.message };
  const { labels, predictions, familiar } = outcome;
  return { file: name, predictions, ...(labels ? { labels } : {}), ...(familiar === undefined ? {} : { familiar }), model };
}

function json(records) {
  return `[\n${records.map((entry) => JSON.stringify(entry)).join(",\n")}\n]\n`;
}

/** Return the record of a picture with what another version answered, and whether both say the same, if both answer. */
export function withOther(own, other, agrees) {
  return { ...own, ...(agrees === undefined ? {} : { agrees }), other };
}

/**
 * Return a row for each label of a picture, and one for a picture without an answer, below a header. Where another
 * version was asked, its rows follow.
 */
function csv(records) {
  const compared = records.some(({ other }) => other);
  const lines = compared ? [[...HEADER, ...OF_TWO], ...records.flatMap(rowsOfBoth)] : [HEADER, ...records.flatMap(rows)];
  return lines.map((row) => `${row.map(cell).join(",")}\n`).join("");
}

function rowsOfBoth({ other, agrees, ...own }) {
  const sides = other ? [own, other] : [own];
  return sides.flatMap((side) =>
    rows(side).map((row) => [...row, side.model?.name ?? "", side.model?.version ?? "", agrees ?? ""]),
  );
}

function rows({ file, predictions, error, message, familiar }) {
  if (!predictions) return [[file, "", "", "", error, message, ""]];
  return predictions.map(({ label, probability }, index) => [file, index + 1, label, probability, "", "", familiar ?? ""]);
}

function cell(value) {
  const text = String(value);
  return /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
}
