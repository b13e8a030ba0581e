// A stock server of Node's: `/status/N` answers N, all else tells which identity was sent. With `h2c`, it speaks HTTP/2
// alone, and `/flushed` ends its body in a frame of its own.
import http from 'node:http';
import http2 from 'node:http2';

function answer(request, response) {
  const status = request.url.match(/^\/status\/(\d+)/);
  if (status) {
    response.writeHead(Number(status[1]));
    return response.end();
  }
  if (request.url.startsWith('/flushed')) {
    response.writeHead(200, { 'content-type': 'text/plain' });
    response.write('flushed');
    return setImmediate(() => response.end());
  }
  response.end(JSON.stringify({ url: request.url, user: request.headers['remote-user'] ?? null }));
}

const server = process.argv[2] === 'h2c' ? http2.createServer(answer) : http.createServer(answer);
server.listen(0, '127.0.0.1', () => console.log(server.address().port));
