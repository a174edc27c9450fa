// Bundles the pages into console/static (or the folder given), the same octets at every build of the same sources.
import { copyFile, mkdir, readFile, rm, writeFile } from "node:fs/promises";
import { basename, dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { build } from "esbuild";

const here = dirname(fileURLToPath(import.meta.url));
const there = process.argv[2] ?? join(here, "..", "static");
const lock = JSON.parse(await readFile(join(here, "package-lock.json"), "utf8"));

await rm(there, { recursive: true, force: true });
await mkdir(there, { recursive: true });

const { metafile } = await build({
  absWorkingDir: here,
  entryPoints: ["src/softphone.js", "src/softphone.css", "src/console/console.js", "src/console/console.css", "src/enroll/enroll.js", "src/enroll/enroll.css"],
  entryNames: "[name]",
  outdir: there,
  bundle: true,
  minify: true,
  charset: "utf8",
  target: ["es2021"],
  legalComments: "none", // the licences are in a file of their own
  metafile: true,
});
for (const name of ["index.html", "icon.svg", "console/console.html", "enroll/enroll.html"]) await copyFile(join(here, "src", name), join(there, basename(name)));

// What is in the bundle must come with its licence.
const packages = new Set(Object.keys(metafile.inputs).flatMap((path) => path.match(/^(node_modules\/[^/]+)\//)?.[1] ?? []));
const licences = await Promise.all([...packages].sort().map(licence));
await writeFile(join(there, "licences.txt"), licences.join("\n\n"));

async function licence(path) {
  for (const name of ["LICENSE", "LICENSE.md", "license.md"]) {
    const text = await readFile(join(here, path, name), "utf8").catch(() => null);
    if (text) return `${path.split("/")[1]} ${lock.packages[path].version}\n\n${text.trim()}\n`;
  }
  throw new Error(`${path} has no licence`);
}
