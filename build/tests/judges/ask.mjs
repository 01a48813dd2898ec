// Asks two published packages what projects are: folders as JSON on standard input, answers on standard output.
import { existsSync, readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { join } from 'node:path';

const require = createRequire(join(process.argv[2], 'x.js'));
const { frameworks } = require('@vercel/frameworks');
const root = join(process.argv[2], 'node_modules/@netlify/build-info/lib');
const { Project } = await import(join(root, 'project.js'));
const { NodeFS } = await import(join(root, 'node/file-system.js'));

function shows(folder, detector) {
  const file = detector.matchPackage ? 'package.json' : detector.path;
  const path = join(folder, file);
  if (!existsSync(path)) return false;
  const text = readFileSync(path, 'utf8');
  if (detector.matchPackage) {
    const { dependencies = {}, devDependencies = {} } = JSON.parse(text);
    return detector.matchPackage in dependencies || detector.matchPackage in devDependencies;
  }
  return !detector.matchContent || new RegExp(detector.matchContent, 'm').test(text);
}

function vercel(folder) {
  const fits = ({ detectors, experimental }) => {
    if (!detectors || experimental) return false;
    const { every = [], some = [] } = detectors;
    return every.every((one) => shows(folder, one)) && (some.length === 0 || some.some((one) => shows(folder, one)));
  };
  return frameworks.find((framework) => framework.slug && fits(framework))?.slug ?? null;
}

async function netlify(folder) {
  const fs = new NodeFS();
  fs.cwd = folder;
  const found = await new Project(fs, folder).detectFrameworks();
  return found?.map((framework) => framework.id) ?? [];
}

const answers = {};
for (const folder of JSON.parse(readFileSync(0, 'utf8'))) {
  answers[folder] = { vercel: vercel(folder), netlify: await netlify(folder) };
}
const classes = await import(join(root, 'frameworks/index.js'));
const known = {
  vercel: frameworks.map((framework) => framework.slug).filter(Boolean),
  netlify: classes.frameworks.map((Framework) => new Framework({}, {}).id),
};
console.log(JSON.stringify({ ...known, folders: answers }));
