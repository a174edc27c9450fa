// A list of any length: only the rows in sight are in the page, and more are asked for as one scrolls.
import { Refused } from "./asking.js";
import { element } from "./page.js";
import { number, say } from "./words.js";

const NARROW = matchMedia("(max-width: 700px)");
const WIDE_ROW = 44;
const NARROW_ROW = 148;
/** Rows beyond the window that are in the page, too. */
const BEYOND = 8;
/** Milliseconds between two looks for what has changed. */
const AGAIN = 2000;

/** One cell; a text that is cut off is there as its title. */
function cell(column, content) {
  return element("span", { role: "cell", class: column.class, title: typeof content === "string" && content ? content : null }, content);
}

/**
 * `columns`: [{ name, class, cell: (row) => node or text }]; `page`: (after, signal) => { rows, after }; `total`: (signal) => how many in all.
 * `.root` is the element; `start()` begins anew, `changed()` says that there may be news.
 */
export class List {
  constructor(label, columns, page, { empty, problem, total = async () => null }) {
    this.counted = total;
    this.columns = columns;
    this.page = page;
    this.problem = problem;
    this.rows = [];
    this.shown = new Map();
    this.after = null;
    this.total = null;
    this.count = element("p", { class: "count", role: "status" });
    this.none = element("p", { class: "none", hidden: true }, empty);
    this.spacer = element("div", { class: "spacer", role: "presentation" });
    this.body = element("div", { class: "body", role: "rowgroup", tabindex: "0", "aria-label": label }, this.spacer);
    const head = element("div", { class: "line head", role: "row" }, ...columns.map((column) => element("span", { role: "columnheader", class: column.class }, column.name)));
    this.table = element("div", { class: "list", role: "table", "aria-label": label }, element("div", { role: "rowgroup" }, head), this.body);
    this.root = element("section", { class: "listing" }, this.count, this.none, this.table);
    this.body.addEventListener("scroll", () => requestAnimationFrame(() => this.show()), { passive: true });
    this.resized = () => this.show(true);
    NARROW.addEventListener("change", this.resized);
    addEventListener("resize", this.resized);
  }

  close() {
    this.asking?.abort();
    clearTimeout(this.later);
    NARROW.removeEventListener("change", this.resized);
    removeEventListener("resize", this.resized);
  }

  /** Asks for the first page; `quietly`: what is there stays until it has come. */
  async start(quietly = false) {
    this.asking?.abort();
    this.asking = new AbortController();
    const { signal } = this.asking;
    this.busy = true; // what follows is of rows that will not be there
    this.table.setAttribute("aria-busy", String(!quietly));
    this.last = performance.now();
    try {
      const found = await this.page(null, signal);
      if (signal.aborted) return;
      this.rows = found.rows;
      this.after = found.after;
      this.busy = false;
      if (!quietly) {
        this.total = null;
        this.body.scrollTop = 0;
      }
      this.problem(null);
      this.show(true);
      this.total = this.after ? await this.counted(signal) : this.rows.length;
      if (!signal.aborted) this.show();
    } catch (error) {
      if (signal.aborted) return;
      if (!(error instanceof Refused)) throw error;
      if (!quietly) this.clear();
      this.problem(error);
    } finally {
      if (!signal.aborted) this.busy = false;

      if (!signal.aborted) this.table.setAttribute("aria-busy", "false");
    }
  }

  /** What is there is no answer to what was asked now. */
  clear() {
    this.rows = [];
    this.after = this.total = null;
    this.show(true);
    this.none.hidden = true;
    this.count.textContent = "";
  }

  /** There may be news: looks, at most every two seconds, unless somebody reads further down. */
  changed() {
    if (this.later || this.body.scrollTop > this.height() * 20) return;
    this.later = setTimeout(() => {
      this.later = undefined;
      this.start(true);
    }, Math.max(0, AGAIN - (performance.now() - this.last)));
  }

  height() {
    return NARROW.matches ? NARROW_ROW : WIDE_ROW;
  }

  /** Puts the rows in sight into the page. */
  show(anew = false) {
    const height = this.height();
    const first = Math.max(0, Math.floor(this.body.scrollTop / height) - BEYOND);
    const last = Math.min(this.rows.length, Math.ceil((this.body.scrollTop + this.body.clientHeight) / height) + BEYOND);
    for (const [index, line] of this.shown) {
      if (index >= first && index < last && !(anew && line.of !== this.rows[index])) continue;
      line.remove();
      this.shown.delete(index);
    }
    for (let index = first; index < last; index += 1) {
      const line = this.shown.get(index) ?? this.line(index);
      line.style.transform = `translateY(${index * height}px)`;
    }
    this.spacer.style.height = `${this.rows.length * height}px`;
    this.table.setAttribute("aria-rowcount", String(this.after ? -1 : this.rows.length + 1));
    this.none.hidden = this.rows.length > 0;
    this.table.hidden = this.rows.length === 0;
    this.count.textContent = this.total === null ? say("firstRows", number(this.rows.length)) : say("allRows", number(this.total));
    if (this.after && last + 50 > this.rows.length) this.more();
  }

  line(index) {
    const row = this.rows[index];
    const cells = this.columns.map((column) => cell(column, column.cell(row)));
    const line = element("div", { class: "line", role: "row", "aria-rowindex": index + 2 }, ...cells);
    line.of = row;
    // In the order of the rows, so that the tabulator goes down.
    const next = [...this.shown.keys()].filter((shown) => shown > index).sort((a, b) => a - b)[0];
    this.spacer.insertBefore(line, next === undefined ? null : this.shown.get(next));
    this.shown.set(index, line);
    return line;
  }

  async more() {
    if (this.busy) return;
    this.busy = true;
    const { signal } = this.asking;
    try {
      const found = await this.page(this.after, signal);
      if (signal.aborted) return;
      this.rows.push(...found.rows);
      this.after = found.after;
      this.busy = false;
      this.show();
    } catch (error) {
      if (signal.aborted) return;
      if (!(error instanceof Refused)) throw error;
      this.problem(error);
      setTimeout(() => {
        if (!signal.aborted) this.busy = false;
      }, AGAIN);
    }
  }
}
