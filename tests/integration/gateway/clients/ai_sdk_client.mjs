// Use the AI SDK with its provider for servers that are compatible with OpenAI's, and print what it returns as JSON.
import fs from 'node:fs';
import { createRequire } from 'node:module';
import path from 'node:path';
import process from 'node:process';

const [url, folder, packages] = process.argv.slice(2);
const require = createRequire(path.join(packages, 'index.js'));
const { generateImage } = require('ai');
const { createOpenAICompatible } = require('@ai-sdk/openai-compatible');

const provider = createOpenAICompatible({ name: 'triton', baseURL: `${url}/v1`, apiKey: 'any' });
const model = provider.imageModel('ensemble');
const options = { triton: { seed: 7, steps: 2, embed_metadata: false } };
const small = { model, size: '64x64', providerOptions: options, maxRetries: 0 };
const file = (name) => fs.readFileSync(path.join(folder, name));

async function errorOf(fields) {
  try {
    await generateImage({ ...small, prompt: 'a red apple', ...fields });
  } catch (error) {
    return [error.statusCode, error.message];
  }
  return [];
}

const made = await generateImage({ ...small, prompt: 'a red apple', n: 2 });
const edit = await generateImage({
  ...small, size: undefined, prompt: { text: 'a red apple', images: [file('image.png')], mask: file('mask.png') },
});
console.log(JSON.stringify({
  generations: made.images.map((image) => image.base64),
  edit: edit.image.base64,
  errors: [await errorOf({ size: '9000x16' }), await errorOf({ model: provider.imageModel('gpt-image-2') })],
}));
