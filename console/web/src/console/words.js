// The console's texts, and how it writes times and numbers.
import { texts } from "../texts.js";
import words from "./words.json";

export const { language, say, translate } = texts(words);

const tag = language === "pt" ? "pt-BR" : "en-GB";
const whole = new Intl.DateTimeFormat(tag, { year: "numeric", month: "2-digit", day: "2-digit", hour: "2-digit", minute: "2-digit", second: "2-digit" });
const yearFirst = (at) => {
  const { year, month, day, hour, minute, second } = Object.fromEntries(whole.formatToParts(at).map(({ type, value }) => [type, value]));
  return `${year}-${month}-${day} ${hour}:${minute}:${second}`;
};
const hour = new Intl.DateTimeFormat(tag, { hour: "2-digit", minute: "2-digit" });
const numbers = new Intl.NumberFormat(tag, { maximumFractionDigits: 1 });

/** A moment, in milliseconds, as this browser's clock shows it; "" for none. In English the year comes first: which of
 * two numbers is the month, readers of English do not agree on. */
export const moment = (at) => (at ? (language === "en" ? yearFirst : whole.format)(at) : "");
export const clock = (at) => hour.format(at);
export const number = (value) => (value === null || value === undefined ? "–" : numbers.format(value));
export const percent = (share) => (share === null || share === undefined ? "–" : `${numbers.format(share * 100)} %`);

/** `4 min 10 s`, of milliseconds; coarse, for people. */
export function span(milliseconds) {
  const seconds = Math.max(0, Math.floor(milliseconds / 1000));
  if (seconds < 60) return `${seconds} s`;
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min ${seconds % 60} s`;
  if (seconds < 86400) return `${Math.floor(seconds / 3600)} h ${Math.floor((seconds % 3600) / 60)} min`;
  return `${Math.floor(seconds / 86400)} d ${Math.floor((seconds % 86400) / 3600)} h`;
}
