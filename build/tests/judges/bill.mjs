// Says whether a bill of materials on standard input is CycloneDX 1.6, by the schema that its makers publish.
import { readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { join } from 'node:path';

const require = createRequire(join(process.argv[2], 'x.js'));
const { Spec, Validation } = require('@cyclonedx/cyclonedx-library');
const bill = readFileSync(0, 'utf8');
const wrong = await new Validation.JsonStrictValidator(Spec.Version.v1dot6).validate(bill);
const names = JSON.parse(bill).components.map((component) => component['bom-ref']);
if (wrong !== null) throw new Error(JSON.stringify(wrong).slice(0, 2000));
if (new Set(names).size !== names.length) throw new Error('names that are not one each');
