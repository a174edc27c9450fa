// Who is registered, who was at a moment, and one of them.
import { Refused, get, post, us } from "./asking.js";
import { List } from "./list.js";
import { element, facts, repeated, sure, table } from "./page.js";
import { moment, number, say, span } from "./words.js";

const DAY = 86_400_000;
/** Milliseconds between two looks at who failed to log in: the log is read for it. */
const FAILURES_AGAIN = 60_000;

export function link(aor) {
  return element("a", { href: `#/registrations/${encodeURIComponent(aor)}` }, aor);
}

/** The list. */
export function registrations({ problem, parameters, remember }) {
  const list = new List(
    say("registrations"),
    [
      { name: say("aor"), class: "first", cell: (row) => link(row.aor) },
      { name: say("since"), cell: (row) => moment(row.since) },
      { name: say("contact"), class: "long", cell: (row) => row.contact },
      { name: say("from"), cell: (row) => row.from },
      { name: say("edge"), cell: (row) => row.edge },
      { name: say("agent"), class: "long", cell: (row) => row.agent },
    ],
    (after, signal) => get("registrations", { ...searched(), at: at(), after }, signal),
    { empty: say("nobody"), problem, total: async (signal) => (then ? null : (await get("registrations/count", searched(), signal)).total) },
  );
  let then = Number(parameters.get("at")) || 0;
  if (then > Date.now()) then = 0; // nobody knows who will be registered
  const at = () => then || "";
  const searched = () => ({ search: search.value.trim(), in: all.checked ? "all" : "" });
  const search = element("input", { id: "search", type: "search", maxlength: 256, autocomplete: "off", spellcheck: "false" });
  search.value = parameters.get("search") ?? "";
  const all = element("input", { type: "checkbox" });
  all.checked = parameters.get("in") === "all";
  const date = element("input", { id: "at", type: "datetime-local", step: "1" });
  const slider = element("input", { id: "slider", type: "range", step: "1000", "aria-label": say("asOf") });
  const now = element("button", { type: "button", class: "plain" }, say("now"));
  const shown = element("p", { class: "hint", role: "status" });
  const user = element("a", { hidden: true });
  let wait;
  let known; // since when the past is: null: nothing is known yet

  /** What is known of that moment: nothing, if it was before. */
  function told() {
    if (!then) return say("liveShown");
    if (known === null) return say("nothingKnown", moment(then));
    return then < known ? say("unknownThen", moment(then), moment(known)) : say("asOfShown", moment(then));
  }

  function seen() {
    now.setAttribute("aria-pressed", String(!then));
    date.value = local(then || Date.now());
    slider.value = then || slider.max;
    slider.setAttribute("aria-valuetext", then ? moment(then) : say("now"));
    shown.textContent = told();
    const unknown = then && (known === null || then < known);
    const name = search.value.trim();
    list.none.textContent = unknown ? "" : say(name ? "nobodyFits" : then ? "nobodyThen" : "nobody");
    user.hidden = !name || all.checked;
    user.href = `#/registrations/${encodeURIComponent(name)}`;
    user.textContent = say("pageOf", name);
  }

  function asked(delay = 200) {
    clearTimeout(wait);
    seen();
    wait = setTimeout(() => {
      remember({ ...searched(), at: at() });
      list.start();
    }, delay);
  }

  search.addEventListener("input", () => asked());
  all.addEventListener("change", () => asked(0));
  slider.addEventListener("input", () => {
    then = Number(slider.value) >= Number(slider.max) ? 0 : Number(slider.value);
    asked();
  });
  date.addEventListener("change", () => {
    then = date.value ? new Date(date.value).getTime() : 0;
    if (then > Date.now()) then = 0;
    asked();
  });
  now.addEventListener("click", () => {
    then = 0;
    bounds();
    asked(0);
  });

  async function bounds() {
    slider.max = Math.floor(Date.now() / 1000) * 1000;
    slider.min = slider.max - DAY;
    const { since } = await get("known-since").catch(() => ({ since: undefined }));
    known = since;
    if (since) slider.min = Math.ceil(since / 1000) * 1000;
    seen();
  }

  const form = element(
    "form",
    { class: "filters", role: "search", onsubmit: (event) => event.preventDefault() },
    field("search", say("searchUser"), element("span", { class: "row" }, search, element("label", { class: "check" }, all, say("everywhere")), user)),
    field("at", say("asOf"), element("span", { class: "row" }, date, now)),
    element("div", { class: "slider" }, slider),
  );
  bounds();
  list.start();
  return {
    title: say("registrations"),
    nodes: [form, shown, list.root],
    close: () => {
      clearTimeout(wait);
      list.close();
    },
    changed: (what) => what.registrations && !then && list.changed(),
  };
}

export function field(id, name, control, kind = "") {
  return element("div", { class: `field ${kind}` }, element("label", { for: id }, name), control);
}

/** `2026-11-28T10:05:00` of a moment, as the input for dates wants it. */
export function local(at) {
  const date = new Date(at - new Date(at).getTimezoneOffset() * 60_000);
  return date.toISOString().slice(0, 19);
}

/** One AOR. */
export function registration({ problem, name }) {
  const bindings = element("div", { class: "cards" });
  const past = element("div", {});
  const failed = element("div", {});
  let aor = name;

  function shown(found) {
    aor = found.aor;
    bindings.replaceChildren(...(found.bindings.length ? found.bindings.map((each) => card(each, found.at)) : [element("p", {}, say("notRegistered"))]));
    all.hidden = us.role !== "operator" || found.bindings.length < 2;
    past.replaceChildren(
      found.history.length === 0 ? element("p", {}, say("neverRegistered")) : table(
        say("history"),
        [say("since"), say("until"), say("contact"), say("from"), say("edge"), say("began"), say("ended")],
        found.history.map((each) => [
          moment(each.since),
          each.until ? moment(each.until) : say("now"),
          each.contact,
          each.from,
          each.edge,
          `${say(`change.${each.began}`)}${by(each.began_by)}`,
          each.ended ? `${say(`change.${each.ended}`)}${by(each.ended_by)}` : "",
        ]),
      ),
      ...(found.more ? [element("p", { class: "hint" }, say("newestOnly"))] : []),
    );
  }

  function refused({ failures }) {
    failed.replaceChildren(
      failures.length
        ? table(
            say("failures"),
            [say("last"), say("times"), say("from"), say("as"), say("why")],
            failures.map((each) => [moment(each.last), number(each.times), each.source, each.user === each.aor ? each.user : `${each.user} → ${each.aor}`, why(each.reason)]),
          )
        : element("p", { class: "hint" }, say("noFailures")),
    );
  }

  function card(each, at) {
    const pairs = [
      [say("since"), moment(each.since)],
      [say("refreshed"), moment(each.refreshed)],
      [say("endsIn"), span(each.expires - at)],
      [say("from"), each.from],
      [say("edge"), each.edge],
      [say("agent"), each.agent],
    ];
    return element("article", { class: "card" }, element("h2", {}, each.contact), facts(pairs), us.role === "operator" ? buttons(each.contact) : null);
  }

  /** Of one binding, or of all. */
  function buttons(contact) {
    const button = (name, label) => element("button", { type: "button", class: "bad", onclick: () => ended(name, contact) }, say(label));
    return element("div", { class: "row" }, button("kick", contact ? "kick" : "kickAll"), button("remove", contact ? "remove" : "removeAll"));
  }

  async function ended(name, contact) {
    if (!(await sure(say(`sure.${name}${contact ? "One" : "All"}`, contact ?? aor), say(name), say("keep")))) return;
    try {
      await post(name, contact ? { aor, contact } : { aor });
      problem(null);
      asking.again();
    } catch (error) {
      if (!(error instanceof Refused)) throw error;
      problem(error);
    }
  }

  const all = element("div", { hidden: true }, buttons(null));
  const asking = repeated(problem, (signal) => get("registration", { aor: name }, signal), shown);
  const failing = repeated(problem, (signal) => get("failures", { aor: name }, signal), refused, FAILURES_AGAIN);
  asking.again();
  failing.again();
  return {
    title: name,
    back: "#/registrations",
    nodes: [element("h2", {}, say("bindings")), bindings, all, element("h2", {}, say("history")), past, element("h2", {}, say("failures")), failed],
    close: () => {
      asking.close();
      failing.close();
    },
    changed: (what) => what.registrations && asking.again(),
  };
}

const REASONS = ["wrong response", "unknown user", "user name with domain", "no HA1", "not this user's AOR", "locked out"];
/** One that only a newer authsvc knows stands as it is. */
const why = (reason) => (REASONS.includes(reason) ? say(`why.${reason}`) : reason);
const by = (who) => (who ? ` – ${who}` : "");
