// Drives every feature through the official SDK and prints one JSON line for each.
// What the answers must be is for test_e2e_javascript.py to say.
import { readFileSync } from 'node:fs';
import OpenAI from 'openai';
import { ResponsesWS } from 'openai/resources/responses/ws';

const given = JSON.parse(readFileSync(0, 'utf8'));
const client = new OpenAI({ baseURL: given.baseURL, apiKey: given.apiKey, maxRetries: 0 });
const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));
const words = (n) => Array.from({ length: n }, (_, i) => `w${i}`).join(' ');

async function collect(stream) {
  const events = [];
  for await (const event of stream) events.push(event);
  return events;
}

const told = (events) => ({
  types: events.map((event) => event.type),
  numbers: events.map((event) => event.sequence_number),
  text: events
    .filter((event) => event.type === 'response.output_text.delta')
    .map((event) => event.delta)
    .join(''),
  last: events.at(-1),
});

async function caught(promise) {
  try {
    await promise;
    return null;
  } catch (error) {
    const { status, code, param, type } = error;
    return { name: error.constructor.name, status, code, param, type };
  }
}

async function ended(id) {
  for (;;) {
    const response = await client.responses.retrieve(id);
    if (!['queued', 'in_progress'].includes(response.status)) return response;
    await pause(20);
  }
}

// Events of a socket until `enough` says so; the socket stays open.
async function heard(socket, enough) {
  const events = [];
  for await (const event of socket) {
    if (event.type === 'error') {
      events.push({ type: 'error', message: event.error.message });
    } else if (event.type === 'message') {
      events.push(event.message);
    } else if (event.type === 'close') {
      throw new Error(`closed with ${event.code}`);
    }
    if (enough(events)) return events;
  }
  throw new Error('the socket has ended');
}

const completed = (n) => (events) =>
  events.filter((event) => event.type === 'response.completed').length === n;
const finals = (events) =>
  events
    .filter((event) => event.type === 'response.completed')
    .map((event) => ({
      lane: event.stream_id,
      text: event.response.output[0].content[0].text,
    }));

const features = {
  async plain() {
    return client.responses.create({
      model: 'echo',
      input: 'one two three',
      instructions: 'Say it again.',
      metadata: { order: '7' },
      max_output_tokens: 2,
      temperature: 0.5,
      top_p: 0.9,
    });
  },
  async streamed() {
    return told(
      await collect(
        await client.responses.create({ model: 'echo', input: 'one two three', stream: true }),
      ),
    );
  },
  async background() {
    const made = await client.responses.create({
      model: 'echo',
      input: 'in the background',
      background: true,
    });
    return { first: made.status, then: (await ended(made.id)).output_text };
  },
  async resumed() {
    const made = await client.responses.create({ model: 'echo', input: words(20) });
    const all = await collect(await client.responses.retrieve(made.id, { stream: true }));
    const rest = await collect(
      await client.responses.retrieve(made.id, { stream: true, starting_after: 9 }),
    );
    return { all: told(all), rest: told(rest) };
  },
  async cancelled() {
    const made = await client.responses.create({
      model: 'echo',
      input: words(20000),
      background: true,
    });
    await pause(200);
    await client.responses.cancel(made.id);
    return ended(made.id);
  },
  async deleted() {
    const made = await client.responses.create({ model: 'echo', input: 'forget me' });
    await client.responses.delete(made.id);
    return caught(client.responses.retrieve(made.id));
  },
  async unstored() {
    const made = await client.responses.create({ model: 'echo', input: 'once', store: false });
    return { text: made.output_text, error: await caught(client.responses.retrieve(made.id)) };
  },
  async continued() {
    const first = await client.responses.create({ model: 'penstock-small', input: 'first' });
    const second = await client.responses.create({
      model: 'penstock-small',
      input: 'second',
      previous_response_id: first.id,
    });
    return {
      first: first.id,
      previous: second.previous_response_id,
      tokens: [first.usage.input_tokens, second.usage.input_tokens],
    };
  },
  async structured() {
    const response = await client.responses.create({
      model: 'penstock-large',
      input: given.message,
      text: { format: { type: 'json_schema', name: 'order', schema: given.orderSchema } },
    });
    return JSON.parse(response.output_text);
  },
  async called() {
    const asked = await client.responses.create({
      model: 'penstock-large',
      input: given.message,
      tools: [
        { type: 'function', name: 'place_order', parameters: given.orderSchema, strict: true },
      ],
    });
    const [call] = asked.output;
    const answer = await client.responses.create({
      model: 'penstock-large',
      previous_response_id: asked.id,
      input: [{ type: 'function_call_output', call_id: call.call_id, output: '{"ok":true}' }],
    });
    return { call, arguments: JSON.parse(call.arguments), answer: answer.status };
  },
  async socket() {
    const socket = new ResponsesWS(client);
    const first = heard(socket, completed(1));
    socket.send({ type: 'response.create', model: 'echo', input: 'first of all' });
    const one = await first;
    const both = heard(socket, completed(2));
    socket.send({ type: 'response.create', model: 'echo', input: 'a b c', stream_id: 'left' });
    socket.send({ type: 'response.create', model: 'echo', input: 'd e f', stream_id: 'right' });
    const two = await both;
    socket.close();
    return { one: told(one), two: finals(two) };
  },
  async socketErrors() {
    const socket = new ResponsesWS(client);
    const events = heard(socket, (all) => all.length > 0);
    socket.send({ type: 'response.create', model: 'echo', input: 'x', surprise: 1 });
    const [event] = await events;
    const after = heard(socket, completed(1));
    socket.send({ type: 'response.create', model: 'echo', input: 'it goes on' });
    const goes = finals(await after);
    socket.close();
    return { event, goes };
  },
  async chat() {
    return client.chat.completions.create({
      model: 'echo',
      messages: [{ role: 'user', content: 'hello there' }],
    });
  },
  async chatStreamed() {
    return collect(
      await client.chat.completions.create({
        model: 'echo',
        messages: [{ role: 'user', content: 'hello there' }],
        stream: true,
        stream_options: { include_usage: true },
      }),
    );
  },
  async chatTools() {
    const made = await client.chat.completions.create({
      model: 'penstock-large',
      messages: [{ role: 'user', content: given.message }],
      tools: [
        { type: 'function', function: { name: 'place_order', parameters: given.orderSchema } },
      ],
    });
    return made.choices[0];
  },
  async chatFormat() {
    const made = await client.chat.completions.create({
      model: 'penstock-large',
      messages: [{ role: 'user', content: given.message }],
      response_format: { type: 'json_object' },
    });
    return JSON.parse(made.choices[0].message.content);
  },
  async embeddings() {
    const input = ['one text', 'and another'];
    const model = given.embeddingModel;
    const floats = await client.embeddings.create({ model, input, encoding_format: 'float' });
    const packed = await client.embeddings.create({ model, input }); // base64 on the wire
    return { floats: floats.data, packed: packed.data, usage: floats.usage };
  },
  async models() {
    const listed = await collect(client.models.list());
    return { ids: listed.map((model) => model.id), one: await client.models.retrieve('echo') };
  },
  async errors() {
    const stranger = new OpenAI({ baseURL: given.baseURL, apiKey: 'psk_wrong', maxRetries: 0 });
    const model = 'echo';
    return {
      key: await caught(stranger.models.list()),
      model: await caught(client.responses.create({ model: 'gpt-9', input: 'x' })),
      parameter: await caught(client.responses.create({ model, input: 'x', prompt: { id: 'p' } })),
      value: await caught(client.responses.create({ model, input: 'x', temperature: 9 })),
      id: await caught(client.responses.retrieve(`resp_${'0'.repeat(32)}`)),
    };
  },
};

for (const [feature, drive] of Object.entries(features)) {
  let line;
  try {
    line = { feature, result: await drive() };
  } catch (error) {
    line = { feature, error: `${error?.stack ?? error}` };
  }
  console.log(JSON.stringify(line));
}
process.exit(0);
