// The softphone's texts.
import { texts } from "./texts.js";
import words from "./words.json";

export const { language, say, translate } = texts(words);
