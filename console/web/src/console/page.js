// Elements, without any markup: nothing that anybody sent is ever read as HTML. And what is asked while a page is open.
import { Refused } from "./asking.js";

/** An element with attributes (`on…`: a listener; true, false, null: there or not) and children. */
export function element(name, attributes = {}, ...children) {
  return filled(document.createElement(name), attributes, children);
}

const SVG = "http://www.w3.org/2000/svg";

/** The same in SVG. */
export function drawn(name, attributes = {}, ...children) {
  return filled(document.createElementNS(SVG, name), attributes, children);
}

function filled(made, attributes, children) {
  for (const [key, value] of Object.entries(attributes)) {
    if (key.startsWith("on")) made.addEventListener(key.slice(2), value);
    else if (value !== null && value !== undefined && value !== false) made.setAttribute(key, value === true ? "" : value);
  }
  made.append(...children.filter((child) => child !== null && child !== undefined));
  return made;
}

/** A definition list of what is there. */
export function facts(pairs) {
  const rows = pairs.filter(([, value]) => value !== "" && value !== null && value !== undefined);
  return element("dl", { class: "facts" }, ...rows.map(([name, value]) => element("div", {}, element("dt", {}, name), element("dd", {}, value))));
}

/** A table that is short; it scrolls sideways where it is too wide. */
export function table(caption, columns, rows) {
  return element(
    "div",
    { class: "wide", tabindex: "0", role: "region", "aria-label": caption },
    element(
      "table",
      {},
      element("thead", {}, element("tr", {}, ...columns.map((column) => element("th", { scope: "col" }, column)))),
      element("tbody", {}, ...rows.map((cells) => element("tr", {}, ...cells.map((cell) => element("td", {}, cell ?? ""))))),
    ),
  );
}

/** Asks before something is done that cannot be undone. */
export function sure(question, yes, no) {
  const dialog = element(
    "dialog",
    { "aria-labelledby": "question" },
    element(
      "form",
      { method: "dialog" },
      element("p", { id: "question" }, question),
      element("div", { class: "row" }, element("button", { value: "no", autofocus: true }, no), element("button", { value: "yes", class: "bad" }, yes)),
    ),
  );
  document.body.append(dialog);
  dialog.showModal();
  return new Promise((resolve) => {
    dialog.addEventListener("close", () => {
      dialog.remove();
      resolve(dialog.returnValue === "yes");
    });
  });
}

/**
 * What a page shows, asked for anew by `again()` until `close()`: one question at a time, and nothing is shown of one
 * whose page was left. `every`: in milliseconds, by itself.
 */
export function repeated(problem, ask, show, every = 0) {
  const left = new AbortController();
  let running = false;
  let more = false;
  let wrong = false;
  let ticking;

  async function again() {
    more = running;
    if (running || left.signal.aborted) return;
    running = true;
    clearTimeout(ticking);
    try {
      const found = await ask(left.signal);
      if (left.signal.aborted) return;
      show(found);
      if (wrong) problem(null); // only what this has said: not why something that was done was refused
      wrong = false;
    } catch (error) {
      if (left.signal.aborted) return;
      if (!(error instanceof Refused)) throw error;
      wrong = true;
      problem(error);
    } finally {
      running = false;
      if (!left.signal.aborted && more) again();
      else if (!left.signal.aborted && every) ticking = setTimeout(again, every);
    }
  }

  function close() {
    left.abort();
    clearTimeout(ticking);
  }
  return { again, close };
}
