// Builds the pages with esbuild into dist, compressed, so that the program builds with Go
// alone:
//
//   node build.mjs           writes dist
//   node build.mjs --check   fails if dist differs from what it would write
//   node build.mjs --gallery DIR   writes the page of all components into DIR, for the tests
import { createHash } from "node:crypto";
import { mkdir, readdir, readFile, rm, writeFile } from "node:fs/promises";
import { dirname, join, relative } from "node:path";
import { fileURLToPath } from "node:url";
import { gunzipSync, gzipSync } from "node:zlib";
import * as esbuild from "esbuild";

const here = dirname(fileURLToPath(import.meta.url));
const dist = join(here, "dist");
const client = join(here, "../../clients/typescript/src/index.ts");

/** Lets the pages import the packages of the client, which has them already. */
const packagesOfClient = {
  name: "packages-of-client",
  setup(build) {
    const resolveDir = dirname(client);
    build.onResolve({ filter: /^@connectrpc\// }, ({ path, kind, importer }) =>
      importer.startsWith(join(here, "src")) ? build.resolve(path, { kind, resolveDir }) : undefined);
  },
};

/** Leaves out of the bundles what the pages do not use of the client. */
const withoutUnused = {
  name: "without-unused",
  setup(build) {
    const absent = { path: join(here, "src/app/absent.ts") };
    const ofClient = /clients\/typescript\/src\/\w+\.ts$/;
    build.onResolve({ filter: /\/(apikey|bearer|live|providers|reauthenticate|signing_keys_pb|user_service_pb|webhook_service_pb)\.js$/ }, ({ importer, kind }) =>
      kind === "import-statement" && ofClient.test(importer) ? absent : undefined);
  },
};

/** Leaves out of the bundles how protobuf writes binary messages and reads extensions: the pages send JSON. */
const withoutBinary = {
  name: "without-binary",
  setup(build) {
    const absent = { path: join(here, "src/app/absent-binary.ts") };
    build.onResolve({ filter: /^\.\.?\/(to-binary|extensions)\.js$/ }, ({ importer }) => (importer.includes("/@bufbuild/protobuf/dist/esm/") ? absent : undefined));
  },
};

/** Writes descriptors as text instead of base64, which compresses to two thirds. */
const compactDescriptors = {
  name: "compact-descriptors",
  setup(build) {
    build.onLoad({ filter: /typescript\/src\/gen\/.*_pb\.ts$/ }, async ({ path }) => {
      const text = await readFile(path, "utf8");
      const contents = text.replace(/fileDesc\("([^"]+)"/, (_, base64) => `fileDesc(btoa(${JSON.stringify(Buffer.from(base64, "base64").toString("latin1"))})`);
      return { contents, loader: "ts" };
    });
  },
};

/**
 * The description of descriptors themselves, without the fields that no message of ours
 * sets: they would be a tenth of what a page loads. A message keeps its place, so that the
 * code that names it by its index stays right.
 */
const smallDescriptorDescriptor = {
  name: "small-descriptor-descriptor",
  setup(build) {
    const kept = { MessageOptions: ["map_entry"], FieldOptions: ["packed", "deprecated"], MethodOptions: ["idempotency_level", "deprecated"] };
    const unused = /^(\w*Options|FeatureSet|FeatureSetDefaults|FeatureSetEditionDefault|SourceCodeInfo|Location|GeneratedCodeInfo|Annotation|UninterpretedOption|NamePart|Declaration|VisibilityFeature)$/;
    const prune = message => {
      if (unused.test(message.name)) {
        message.field = (message.field ?? []).filter(field => kept[message.name]?.includes(field.name));
        if (message.name !== "MethodOptions") for (const one of message.enumType ?? []) one.value = one.value.slice(0, 1);
      }
      message.nestedType?.forEach(prune);
    };
    build.onLoad({ filter: /protobuf\/dist\/esm\/wkt\/gen\/google\/protobuf\/descriptor_pb\.js$/ }, async ({ path }) => {
      const text = await readFile(path, "utf8");
      const contents = text.replace(/boot\((\{.*\})\);/, (_, json) => {
        const file = JSON.parse(json);
        file.messageType.forEach(prune);
        return `boot(${JSON.stringify(file)});`;
      });
      if (contents === text) throw new Error(`${path} has changed: fix web/pages/build.mjs`);
      return { contents, loader: "js" };
    });
  },
};

/** Returns the built files by name, and a manifest of what each page loads. */
async function build(entries) {
  const result = await esbuild.build({
    absWorkingDir: here,
    entryPoints: Object.fromEntries(entries.map(name => [name, `src/${name}.tsx`])),
    outdir: "dist",
    write: false,
    bundle: true,
    splitting: true,
    format: "esm",
    target: ["es2022"],
    minify: true,
    metafile: true,
    legalComments: "none",
    charset: "utf8",
    jsx: "automatic",
    jsxImportSource: "preact",
    alias: { "@gatehouse/client": client },
    plugins: [packagesOfClient, withoutUnused, withoutBinary, compactDescriptors, smallDescriptorDescriptor],
    nodePaths: [join(here, "node_modules")],
    // The names of the files hash the paths of what they hold: a folder of packages that is
    // linked, as in a copy of the tree, must not change them.
    preserveSymlinks: true,
    entryNames: "[name]-[hash]",
    chunkNames: "[name]-[hash]",
    assetNames: "[name]-[hash]",
  });
  const files = new Map(result.outputFiles.map(file => [relative(dist, file.path), file.contents]));
  const outputs = Object.entries(result.metafile.outputs).map(([path, output]) => [relative("dist", path), output]);
  const icon = await readFile(join(here, "src/icon.svg"));
  const manifest = {
    pages: {}, texts: {}, parts: [],
    icon: `icon-${createHash("sha256").update(icon).digest("hex").slice(0, 8).toUpperCase()}.svg`,
    keys: Object.keys(JSON.parse(await readFile(join(here, "src/texts/en.json"), "utf8"))),
  };
  files.set(manifest.icon, icon);
  for (const [name, output] of outputs) {
    const texts = /^src\/texts\/(\w+)\.json$/.exec(output.entryPoint ?? "");
    if (texts) manifest.texts[texts[1]] = name;
    const page = /^src\/([\w-]+)\.tsx$/.exec(output.entryPoint ?? "");
    // A part shares its chunks with the page that loads it, so both must be of one build.
    if (output.entryPoint && !page && output.imports.some(one => one.kind === "import-statement")) manifest.parts.push(name);
    if (!page) continue;
    manifest.pages[page[1]] = {
      script: name,
      style: relative("dist", output.cssBundle ?? ""),
      imports: output.imports.filter(one => one.kind === "import-statement").map(one => relative("dist", one.path)).sort(),
    };
  }
  files.set("manifest.json", Buffer.from(JSON.stringify(manifest, null, 2) + "\n"));
  return files;
}

const packed = name => name.endsWith(".json") ? name : `${name}.gz`;

async function write(files, folder) {
  await rm(folder, { recursive: true, force: true });
  await mkdir(folder, { recursive: true });
  for (const [name, content] of files) {
    await writeFile(join(folder, packed(name)), packed(name) === name ? content : gzipSync(content, { level: 9 }));
  }
}

/** Returns the names of files that differ. gzip versions compress differently, so what is compared is uncompressed. */
async function differences(files, folder) {
  const kept = new Set(await readdir(folder).catch(() => []));
  const wrong = [];
  for (const [name, content] of files) {
    const file = packed(name);
    if (!kept.delete(file)) { wrong.push(file); continue; }
    const text = await readFile(join(folder, file));
    if (!Buffer.from(content).equals(file === name ? text : gunzipSync(text))) wrong.push(file);
  }
  return [...wrong, ...kept];
}

const [option, folder] = process.argv.slice(2);
const pages = ["sign-in", "account", "console"];
if (option === "--gallery") {
  await write(await build([...pages, "gallery"]), folder);
} else if (option === "--check") {
  const wrong = await differences(await build(pages), dist);
  if (wrong.length > 0) {
    console.error(`web/pages/dist is stale: ${wrong.join(", ")}; renew it with: make web`);
    process.exit(1);
  }
} else {
  await write(await build(pages), dist);
}
