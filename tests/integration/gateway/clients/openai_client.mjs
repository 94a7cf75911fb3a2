// Use OpenAI's npm package on a gateway, and print what it returns as JSON.
import fs from 'node:fs';
import { createRequire } from 'node:module';
import path from 'node:path';
import process from 'node:process';

const [url, folder, packages] = process.argv.slice(2);
const require = createRequire(path.join(packages, 'index.js'));
const { OpenAI, toFile } = require('openai');

const client = new OpenAI({ baseURL: `${url}/v1`, apiKey: 'any', maxRetries: 1 });
const small = { prompt: 'a red apple', size: '64x64', seed: 7, steps: 2, embed_metadata: false };
const file = (name) => toFile(fs.createReadStream(path.join(folder, name)), name, { type: 'image/png' });

async function errorOf(fields) {
  try {
    await client.images.generate({ model: 'ensemble', ...small, size: '9000x16', ...fields });
  } catch (error) {
    return [error.constructor.name, error.status, error.param, error.code];
  }
  return [];
}

const made = await client.images.generate({ ...small, n: 2, quality: 'high' });
const byUrl = await client.images.generate({ ...small, response_format: 'url' });
const edit = await client.images.edit({
  ...small, size: 'auto', image: await file('image.png'), mask: await file('mask.png'),
});
const editOfList = await client.images.edit({ ...small, image: [await file('image.png')], output_format: 'jpeg' });
const variation = await client.images.createVariation({ image: await file('image.png'), steps: 2 });
const events = [];
const long = { ...small, steps: 100, size: '128x128', stream: true, partial_images: 2 };
for await (const event of await client.images.generate(long)) {
  events.push([event.type, event.size, event.b64_json]);
}
const models = [];
for await (const model of client.models.list()) models.push(model.id);

console.log(JSON.stringify({
  generations: made.data.map((data) => data.b64_json),
  usage: made.usage.total_tokens,
  url: byUrl.data[0].url,
  edit: edit.data[0].b64_json,
  edit_of_list: editOfList.data[0].b64_json,
  variation: variation.data[0].b64_json,
  stream: events,
  models,
  model: (await client.models.retrieve('ensemble')).id,
  errors: [await errorOf({}), await errorOf({ model: 'gpt-image-2' })],
}));
