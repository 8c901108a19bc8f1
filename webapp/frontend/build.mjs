// Bundles one ES module a page and one style sheet into webapp/static/dist. The result is committed, so that running the app
// needs no Node; a test builds again into a folder of its own and compares. `npm ci && npm run build [-- FOLDER]`.
import { build } from "esbuild";
import { readdirSync, rmSync, statSync } from "node:fs";

const pages = readdirSync(new URL("pages/", import.meta.url)).filter((name) => name.endsWith(".js")).sort();
const out = process.argv[2] ? `${process.argv[2]}/` : new URL("../static/dist/", import.meta.url).pathname;
rmSync(out, { recursive: true, force: true });
await build({
  entryPoints: [...pages.map((name) => new URL(`pages/${name}`, import.meta.url).pathname), new URL("app.css", import.meta.url).pathname],
  outdir: out,
  entryNames: "[name]",
  bundle: true,
  minify: true,
  format: "esm",
  splitting: true,
  chunkNames: "part-[hash]",
  target: ["es2022"],
  legalComments: "none",
  loader: { ".svg": "dataurl" },
  logLevel: "warning",
});
for (const name of readdirSync(out).sort()) console.log(String(statSync(out + name).size).padStart(8), name);
