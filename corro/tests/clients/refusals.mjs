// Every refusal reaches node's fetch and its http module with a keep-alive agent, each time.
import http from 'node:http';

const TRIES = 100;
const url = process.argv[2];
const refused = [
  ['POST', '/nowhere', 404],
  ['PATCH', '/api/user', 405],
  ['POST', '/api/user/bulk', 415],
  ['POST', '/api/user', 415],
  ['PUT', '/api/user/no-id', 400],
  ['DELETE', '/api/user/01924000-0000-7000-8000-00000000dead', 404],
  ['POST', '/api/user?nonsense=1', 400],
  ['POST', '/socket.io/?EIO=3&transport=polling', 400],
];
const headers = { 'content-type': 'text/plain' };
const agent = new http.Agent({ keepAlive: true, maxSockets: 4 });

const byHttp = (method, path, body) => new Promise((resolve, reject) => {
  // node sends the body of a DELETE without any framing unless its length is given.
  const framed = { ...headers, 'content-length': body.length };
  const request = http.request(url + path, { method, agent, headers: framed }, answer => {
    answer.resume();
    answer.on('end', () => resolve(answer.statusCode));
    answer.on('error', reject);
  });
  request.on('error', reject);
  request.end(body);
});
const byFetch = async (method, path, body) => {
  const answer = await fetch(url + path, { method, headers, body });
  await answer.arrayBuffer();
  return answer.status;
};

let answered = 0;
for (const [method, path, status] of refused) {
  for (const size of [10, 3_000, 60_000, 1_000_000]) {
    const body = Buffer.alloc(size, 'x');
    for (const send of [byHttp, byFetch]) {
      for (let round = 0; round < TRIES; round += 1) {
        const got = await send(method, path, body);
        if (got !== status) throw new Error(`${method} ${path} ${size}: ${got}, not ${status}`);
        answered += 1;
      }
    }
  }
}
agent.destroy();
console.log(`node: ${answered} refusals of ${refused.length} kinds were heard`);
