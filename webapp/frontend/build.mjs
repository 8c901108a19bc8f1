// Bundles one ES module a page and one style sheet into webapp/static/dist. The result is committed, so that running the app
// needs no Node; a test builds again into a folder of its own and compares. `npm ci && npm run build [-- FOLDER]`.
import { build } from "esbuild";
import { readdirSync, rmSync, statSync } from "node:fs";

const pages = readdirSync(new URL("pages/", import.meta.url)).filter((name) => name.endsWith(".js")).sort();
const out = process.argv[2] ? `${process.argv[2]}/` : new URL("../static/dist/", import.meta.url).pathname;
rmSync(out, { recursive: true, force: true });
const common = { outdir: out, entryNames: "[name]", bundle: true, minify: true, target: ["es2022"], legalComments: "none", logLevel: "warning" };
await build({
  ...common,
  entryPoints: [...pages.map((name) => new URL(`pages/${name}`, import.meta.url).pathname), new URL("app.css", import.meta.url).pathname],
  format: "esm",
  splitting: true,
  chunkNames: "part-[hash]",
  loader: { ".svg": "dataurl" },
});
await build({ ...common, entryPoints: [new URL("early.js", import.meta.url).pathname], format: "iife" });
for (const name of readdirSync(out).sort()) console.log(String(statSync(out + name).size).padStart(8), name);
