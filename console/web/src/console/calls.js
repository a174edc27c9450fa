// Calls that last, calls that were, and one of them: in words, and as a ladder.
import { get } from "./asking.js";
import { List } from "./list.js";
import { drawn, element, facts, repeated } from "./page.js";
import { field, link } from "./registrations.js";
import { language, moment, say, span } from "./words.js";

const SECOND = 1000;

/** The list. */
export function calls({ problem, parameters, remember }) {
  const live = element("input", { id: "live-calls", type: "checkbox" });
  const user = element("input", { id: "user", maxlength: 256, autocomplete: "off", spellcheck: "false" });
  const number = element("input", { id: "number", maxlength: 256, autocomplete: "off", spellcheck: "false" });
  const code = element("input", { id: "code", inputmode: "numeric", pattern: "[1-6][0-9][0-9]", maxlength: 3, autocomplete: "off" });
  const since = element("input", { id: "since", type: "datetime-local", step: "1" });
  const until = element("input", { id: "until", type: "datetime-local", step: "1" });
  const texts = { user, number, code, since, until };
  for (const [name, input] of Object.entries(texts)) input.value = parameters.get(name) ?? "";
  live.checked = parameters.get("live") === "1";
  let wait;

  const list = new List(
    say("calls"),
    [
      { name: say("begun"), class: "first", cell: (row) => element("a", { href: `#/calls/${row.id}` }, moment(row.attempted_ms)) },
      { name: say("caller"), cell: (row) => row.caller },
      { name: say("callee"), cell: (row) => row.callee || row.dialled },
      { name: say("dialled"), class: "long", cell: (row) => row.dialled },
      { name: say("outcome"), cell: outcome },
      { name: say("lasted"), cell: lasted },
    ],
    (after, signal) => get("calls", { ...asked(), after }, signal),
    { empty: "", problem },
  );
  list.root.classList.add("calls");

  function asked() {
    const given = Object.fromEntries(Object.entries(texts).map(([name, input]) => [name, input.value.trim()]));
    if (given.code.length < code.maxLength) given.code = ""; // it is being typed
    const ms = (text) => (text ? new Date(text).getTime() || "" : "");
    return { live: live.checked ? 1 : "", ...given, since: ms(given.since), until: ms(given.until) };
  }

  function fits() {
    list.none.textContent = say(Object.values(asked()).some(Boolean) ? "noCallFits" : "noCalls");
  }

  function begin(delay = 250) {
    fits();
    clearTimeout(wait);
    wait = setTimeout(() => {
      remember({ live: live.checked ? 1 : "", ...Object.fromEntries(Object.entries(texts).map(([name, input]) => [name, input.value.trim()])) });
      list.start();
    }, delay);
  }

  const form = element(
    "form",
    { class: "filters", role: "search", onsubmit: (event) => event.preventDefault(), oninput: () => begin() },
    field("user", say("user"), user, "short"),
    field("number", say("number"), number, "short"),
    field("code", say("code"), code, "short"),
    field("since", say("sinceTime"), since),
    field("until", say("untilTime"), until),
    element("label", { class: "check short" }, live, say("onlyLive")),
  );
  fits();
  const ticking = setInterval(() => live.checked && list.changed(), 5 * SECOND);
  list.start();
  return {
    title: say("calls"),
    nodes: [form, list.root],
    close: () => {
      clearTimeout(wait);
      clearInterval(ticking);
      list.close();
    },
    changed: (what) => what.calls && list.changed(),
  };
}

function outcome(row) {
  const name = say(`outcome.${row.outcome || row.progress || "unknown"}`);
  return row.code ? `${name}, ${row.code} ${row.phrase}` : name;
}

function lasted(row) {
  if (row.progress) return span(Date.now() - (row.answered_ms || row.attempted_ms));
  return row.answered_ms ? span(row.talk_ms) : "";
}

/** One call. */
export function call({ problem, name }) {
  const node = element("div", {});
  let known = "";

  // Of its day: a clock is put forward and back.
  const ask = (signal) => get("call", { id: name, language, offset: -new Date().getTimezoneOffset() }, signal);
  const asking = repeated(problem, ask, (found) => {
    const text = JSON.stringify(found);
    if (text !== known) node.replaceChildren(...shown(found));
    known = text;
  }, 5 * SECOND);

  function shown({ call: of, words, ladder, events }) {
    const at = (user) => (user?.includes("@") ? link(user) : user);
    const pairs = [
      [say("begun"), moment(of.attempted_ms)],
      [say("caller"), at(of.caller)],
      [say("callee"), at(of.callee)],
      [say("dialled"), of.dialled],
      [say("outcome"), outcome(of)],
      [say("reason"), of.reason],
      [say("setup"), of.setup_ms ? `${of.setup_ms} ms` : ""],
      [say("lasted"), lasted(of)],
      [say("edges"), of.edges],
      [say("gateway"), of.gateway],
      [say("source"), [of.caller_transport, of.source].filter(Boolean).join(" ")],
      [say("agents"), [of.caller_agent, of.callee_agent].filter(Boolean).join(" → ")],
      [say("codecs"), of.codecs],
      ["Call-ID", of.call_id],
    ];
    const told = words.length
      ? [element("h2", {}, say("whatHappened")), element("ol", { class: "words" }, ...words.map((line) => element("li", {}, line)))]
      : [element("p", { class: "hint" }, say(`events.${events}`))];
    const drawing = ladder ? [element("h2", {}, say("ladder")), rungs(ladder)] : [];
    return [element("div", { class: "card" }, facts(pairs)), ...told, ...drawing];
  }

  asking.again();
  return { title: say("call"), back: "#/calls", nodes: [node], close: asking.close, changed: (what) => what.calls && asking.again() };
}

// --- the ladder, as SVG -------------------------------------------------------------------

/** How wide a lane is: as narrow as a telephone needs, as wide as a text is long. */
const NARROWEST = 90;
const WIDEST = 190;
const TIMES = 64;
/** What is beside the drawing. */
const BESIDE = 60;
const RUNG = 34;
const TOP = 44;

/** Lanes as lines, messages as arrows between them, their times beside. */
function rungs({ lanes, arrows }) {
  const lane = Math.min(WIDEST, Math.max(NARROWEST, (innerWidth - BESIDE - TIMES) / lanes.length));
  const letters = (count) => Math.floor((count * lane) / 7.5);
  const width = TIMES + lane * lanes.length;
  const height = TOP + RUNG * arrows.length + 16;
  const x = (index) => TIMES + lane * index + lane / 2;
  const parts = lanes.flatMap((title, index) => [
    drawn("line", { class: "lane", x1: x(index), x2: x(index), y1: TOP - 12, y2: height }),
    drawn("text", { class: "title", x: x(index), y: 20, "text-anchor": "middle" }, cut(title, letters(1))),
  ]);
  arrows.forEach(([at, start, end, text], index) => {
    const y = TOP + RUNG * index + 22;
    parts.push(drawn("text", { class: "at", x: TIMES - 8, y: y + 4, "text-anchor": "end" }, `${at} ms`));
    const kind = /^[3-6]/.test(text) || text === "CANCEL" ? "arrow wrong" : /^2/.test(text) ? "arrow right" : "arrow";
    const from = x(start);
    const to = x(end);
    if (start === end) {
      parts.push(drawn("text", { class: "said", x: from + 8, y: y + 4 }, text));
      return;
    }
    const way = Math.sign(to - from);
    parts.push(
      drawn("line", { class: kind, x1: from, x2: to - way * 7, y1: y, y2: y }),
      drawn("path", { class: `${kind} head`, d: `M${to} ${y}l${-way * 9} -5v10z` }),
      drawn("text", { class: "said", x: (from + to) / 2, y: y - 5, "text-anchor": "middle" }, cut(text, letters(Math.abs(end - start)))),
    );
  });
  const told = arrows.map(([at, start, end, text]) => `${at} ms: ${lanes[start]} → ${lanes[end]}: ${text}`).join("; ");
  const svg = drawn("svg", { role: "img", "aria-label": told, width, height, viewBox: `0 0 ${width} ${height}` }, ...parts);
  return element("div", { class: "wide ladder", tabindex: "0", role: "region", "aria-label": say("ladder") }, svg);
}

const cut = (text, length) => (text.length > length ? `${text.slice(0, length - 1)}…` : text);
