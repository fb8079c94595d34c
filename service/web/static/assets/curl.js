// The commands that do in a shell what the page did.

import { inParts } from "./send.js";

/** Return the commands for the pictures, as many as the page sent requests; base is the service's address. */
export function commands(pictures, base, query) {
  return inParts(pictures).map((part) => command(part, base, query)).join("\n");
}

function command(part, base, query) {
  const [one, many] = ["predict", "predict/batch"].map((route) => quoted(new URL(route + query, base).href));
  const [first] = part;
  if (first.address) {
    const form = quoted(`image=@-;filename=${first.name}`);
    return `curl -s ${quoted(first.address)} | curl -F ${form} ${one}`;
  }
  if (part.length === 1) return `curl -F ${file("image", first)} ${one}`;
  const forms = part.map((picture) => `-F ${file("images", picture)}`);
  return ["curl", ...forms, many].join(" \\\n  ");
}

/** Return a file as curl's -F takes it: a comma or a semicolon would end its name, so that quotes go around it. */
function file(field, { name }) {
  const plain = /^[\w./+-]+$/.test(name);
  return quoted(`${field}=@${plain ? name : `"${name.replace(/["\\]/g, "\\$&")}"`}`);
}

/** Return text as one word of a POSIX shell. */
function quoted(text) {
  return /^[\w@%+=:,./-]+$/.test(text) ? text : `'${text.replaceAll("'", "'\\''")}'`;
}
