#!/usr/bin/env node
// parser.mjs PARSE_VERDICT - our request parser against Node's (llhttp).
//
// The same bytes go to parse_verdict and, over a real socket that is shut
// behind them, to a Node HTTP server.  Both must say the same about the first
// request: accepted, with the same method, target, fields, framing and body;
// refused; or incomplete.  Where we differ on purpose, the table `known` says
// why; anything else is printed and makes the exit status 1.
//
// Cases: a list written by hand, and mutations of a few heads in which every
// byte is in turn replaced, removed or doubled, and 10,000 double mutations.

import http from 'node:http'
import net from 'node:net'
import { spawn } from 'node:child_process'

const latin1 = (text) => Buffer.from(text, 'latin1')
const H = 'Host: h\r\n'
const get = (fields) => `GET / HTTP/1.1\r\n${H}${fields}\r\n`
const post = (fields, body = '') => `POST /p?q HTTP/1.1\r\n${H}${fields}\r\n${body}`

// ---- cases ----

const seeds = [
  'GET /a?b=c HTTP/1.1\r\nHost: h:80\r\nA-b: c d\r\nConnection: close\r\n\r\n',
  'POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\nX: y\r\n\r\nabc',
  'PUT /x HTTP/1.1\r\nTransfer-Encoding: chunked\r\nHost: [::1]\r\n\r\n3\r\nabc\r\n0\r\n\r\n',
  'DELETE /1 HTTP/1.0\r\nConnection: keep-alive\r\nContent-Length: 0\r\n\r\n',
]

const written = [
  get(''), post('Content-Length: 0\r\n'), 'GET / HTTP/1.0\r\n\r\n', 'GET /\r\n\r\n', '',
  '\r\n' + get(''), '\r\n\r\n' + get(''), '\n' + get(''), ' ' + get(''),
  'get / HTTP/1.1\r\n' + H + '\r\n', 'FROB / HTTP/1.1\r\n' + H + '\r\n',
  'PATCH / HTTP/1.1\r\n' + H + '\r\n', 'TRACE / HTTP/1.1\r\n' + H + '\r\n',
  'OPTIONS * HTTP/1.1\r\n' + H + '\r\n', 'GET * HTTP/1.1\r\n' + H + '\r\n',
  'CONNECT h:1 HTTP/1.1\r\n' + H + '\r\n', 'PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n',
  'GET http://h/p?q HTTP/1.1\r\n' + H + '\r\n', 'GET http://h HTTP/1.1\r\n' + H + '\r\n',
  'GET https://h?q HTTP/1.1\r\n' + H + '\r\n', 'GET http://other/ HTTP/1.1\r\n' + H + '\r\n',
  'GET http://u@h/ HTTP/1.1\r\n' + H + '\r\n', 'GET ftp://h/ HTTP/1.1\r\n' + H + '\r\n',
  'GET  / HTTP/1.1\r\n' + H + '\r\n', 'GET /  HTTP/1.1\r\n' + H + '\r\n',
  'GET / HTTP/1.1 \r\n' + H + '\r\n', 'GET / HTTP/1.2\r\n' + H + '\r\n',
  'GET / HTTP/0.9\r\n' + H + '\r\n', 'GET / HTTP/2.0\r\n' + H + '\r\n',
  'GET / http/1.1\r\n' + H + '\r\n', 'GET / HTTP/1.1\n' + H + '\r\n',
  'GET / HTTP/1.1\r\nHost: h\n\r\n', 'GET / HTTP/1.1\r\nHost: h\r\n\n', 'GET / HTTP/1.1\nHost: h\n\n',
  'GET / HTTP/1.1\rHost: h\r\r', 'GET /a b HTTP/1.1\r\n' + H + '\r\n',
  'GET /#f HTTP/1.1\r\n' + H + '\r\n', 'GET /\x80 HTTP/1.1\r\n' + H + '\r\n',
  'GET /" HTTP/1.1\r\n' + H + '\r\n', 'GET /%zz HTTP/1.1\r\n' + H + '\r\n',
  'GET /[]{}|^` HTTP/1.1\r\n' + H + '\r\n', 'GET /\t HTTP/1.1\r\n' + H + '\r\n',
  'GET / HTTP/1.1\r\n\r\n', 'GET / HTTP/1.1\r\n' + H + H + '\r\n', 'GET / HTTP/1.1\r\nHost:\r\n\r\n',
  'GET / HTTP/1.1\r\nHost: a b\r\n\r\n', 'GET / HTTP/1.1\r\nHost: a:b\r\n\r\n',
  'GET / HTTP/1.1\r\nHost: [::1\r\n\r\n', 'GET / HTTP/1.1\r\nhOsT : h\r\n\r\n',
  get('A:b\r\n'), get('A:\t b \t\r\n'), get('A:\r\n'), get('A: b\r\n c\r\n'), get('A: b\r\n\tc\r\n'),
  get('A : b\r\n'), get(': b\r\n'), get('A\r\n'), get('A(b: c\r\n'), get('A: b\x00c\r\n'),
  get('A: b\x7fc\r\n'), get('A: b\x01c\r\n'), get('A: \x80\xff\r\n'), get('A: b\rc\r\n'),
  get('A: b\nB: c\r\n'), get('a: 1\r\na: 2\r\nA: 3\r\n'), get(' A: b\r\n'),
  get('a:\r\n'.repeat(99)), get('a:\r\n'.repeat(100)), get('a: ' + 'x'.repeat(15000) + '\r\n'),
  post('Content-Length: 3\r\n', 'abc'), post('Content-Length: 3\r\n', 'abcGET / HTTP/1.1'),
  post('Content-Length: 3\r\n', 'ab'), post('Content-Length: 003\r\n', 'abc'),
  post('Content-Length: +3\r\n', 'abc'), post('Content-Length: -3\r\n', 'abc'),
  post('Content-Length: 3, 3\r\n', 'abc'), post('Content-Length: 3\r\nContent-Length: 3\r\n', 'abc'),
  post('Content-Length: 3\r\nContent-Length: 4\r\n', 'abc'), post('Content-Length: 0x3\r\n', 'abc'),
  post('Content-Length: 3 3\r\n', 'abc'), post('Content-Length:\r\n'), post('Content-Length: 3.0\r\n', 'abc'),
  post('Content-Length: 18446744073709551615\r\n', 'x'), post('Content-Length: 18446744073709551616\r\n', 'x'),
  post('content-length:\t3 \r\n', 'abc'), post('Content-Length: a\r\n', 'abc'),
  post('Transfer-Encoding: chunked\r\n', '3\r\nabc\r\n0\r\n\r\n'),
  post('TRANSFER-encoding: CHUNKED\r\n', '3\r\nabc\r\n0\r\n\r\n'),
  post('Transfer-Encoding: gzip, chunked\r\n', '0\r\n\r\n'), post('Transfer-Encoding: chunked, gzip\r\n', '0\r\n\r\n'),
  post('Transfer-Encoding: chunked, chunked\r\n', '0\r\n\r\n'), post('Transfer-Encoding: identity\r\n', ''),
  post('Transfer-Encoding: xchunked\r\n', '0\r\n\r\n'), post('Transfer-Encoding: chunkedx\r\n', '0\r\n\r\n'),
  post('Transfer-Encoding: "chunked"\r\n', '0\r\n\r\n'), post('Transfer-Encoding:\r\n', ''),
  post('Transfer-Encoding: \x0bchunked\r\n', '0\r\n\r\n'), post('Transfer-Encoding : chunked\r\n', '0\r\n\r\n'),
  post('Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n', '0\r\n\r\n'),
  post('Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n', '0\r\n\r\n'),
  post('Transfer-Encoding: chunked\r\nContent-Length: 3\r\n', '0\r\n\r\n'),
  post('Content-Length: 3\r\nTransfer-Encoding: chunked\r\n', '0\r\n\r\n'),
  'POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n',
  ...['3;a\r\nabc\r\n0\r\n\r\n', '3;a="b;c"\r\nabc\r\n0\r\n\r\n', '3 \r\nabc\r\n0\r\n\r\n', '3 ;a\r\nabc\r\n0\r\n\r\n',
    '03\r\nabc\r\n000\r\n\r\n', 'g\r\n', '\r\n', '-1\r\n', '0x3\r\nabc\r\n0\r\n\r\n', '3\nabc\r\n0\r\n\r\n',
    '3\r\nabc\n0\r\n\r\n', '3\r\nabcd\r\n0\r\n\r\n', '3\r\nabc0\r\n\r\n', '3\r\nabc\r\n0\r\nA: b\r\n\r\n',
    '3\r\nabc\r\n0\r\nA b\r\n\r\n', '3\r\nabc\r\n0\r\n', '0\r\n\n', '0\n\n', '3\r\nabc\r\n0\r\nA: b\n\r\n',
    '10000000000000000\r\nabc', 'ffffffffffffffff\r\nabc', '3;\x01\r\nabc\r\n0\r\n\r\n', '3;a\nabc\r\n0\r\n\r\n',
    '3\r\r\nabc\r\n0\r\n\r\n', '3;\r\nabc\r\n0\r\n\r\n', '0\r\n A: b\r\n\r\n', 'A\r\n0123456789\r\n0\r\n\r\nGET'
  ].map((body) => post('Transfer-Encoding: chunked\r\n', body)),
  get('Expect: 100-continue\r\n'), get('Expect: 100-Continue\r\n'), get('Expect: x\r\n'),
  get('Connection: keep-alive\r\n'), get('Connection: CLOSE\r\n'), get('Connection: a, close\r\n'),
  get('Connection: a b\r\n'), get('Connection:\r\n'), get('Connection: upgrade\r\nUpgrade: websocket\r\n'),
  'GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n', 'GET / HTTP/1.0\r\nConnection: close\r\n\r\n',
  '\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03', 'SSH-2.0-OpenSSH\r\n\r\n', '{"json":true}\r\n\r\n',
]

function mutations(seed) {
  const out = []
  for (let i = 0; i < seed.length; i++) {
    for (const c of '\0\x01\t\n\r ":;,#%/\\@A0\x7f\x80') out.push(seed.slice(0, i) + c + seed.slice(i + 1))
    out.push(seed.slice(0, i) + seed.slice(i + 1))
    out.push(seed.slice(0, i) + seed[i] + seed.slice(i))
    if (i % 3 === 0) out.push(seed.slice(0, i))
  }
  return out
}

// Two mutations at once, chosen by a generator that always starts alike.
function pairs(count) {
  const out = []
  let state = 1
  const below = (n) => (state = (state * 48271) % 2147483647) % n
  const bytes = '\0\t\n\r ":;,#%/\\@A0\x7f\x80\xff'
  while (out.length < count) {
    let text = seeds[below(seeds.length)]
    for (let k = 0; k < 2; k++) {
      const i = below(text.length)
      const put = ['', bytes[below(bytes.length)], text[i] + text[i], '\r\n'][below(4)]
      text = text.slice(0, i) + put + text.slice(i + 1)
    }
    out.push(text)
  }
  return out
}

// ---- where we differ on purpose ----

// when(text, ours, theirs): the difference is this one.
const refusedFor = (...why) => (text, ours, theirs) =>
  ours.verdict === 'refused' && why.includes(ours.why) && theirs.verdict !== 'refused'
const theyRefuse = (code, also = () => true) => (text, ours, theirs) =>
  theirs.verdict === 'refused' && code.test(theirs.why) && ours.verdict !== 'refused' && also(text, ours)
const methods = new Set(http.METHODS)
// Debian 12's Node 18 has an older llhttp, built with its checks relaxed.
const relaxed = (when) => (text, ours, theirs) =>
  parseInt(process.versions.llhttp) < 9 && theirs.verdict === 'accepted' && when(text, ours)

const known = [
  ['llhttp knows a list of methods; RFC 9110 allows any token, and the handler answers 404 or 405',
    theyRefuse(/METHOD|CONSTANT/, (text, ours) => ours.verdict === 'incomplete' || !methods.has(ours.method))],
  ['we judge a head when it is whole, llhttp byte by byte', (text, ours, theirs) =>
    ours.verdict === 'incomplete' && ours.why === 'head' && theirs.verdict === 'refused'],
  ['a line without a version is HTTP/0.9 to llhttp', (text, ours, theirs) =>
    ours.why === 'BAD_LINE' && theirs.minor === 9],
  ['llhttp passes over several spaces before the version', (text, ours) =>
    ours.why === 'BAD_LINE' && /^[^\r\n]* {2,}HTTP\//.test(text)],
  ['we take RFC 3986 targets: no fragment, no quotes, no broken %XX, no bytes above 0x7f; CONNECT is not offered',
    refusedFor('BAD_TARGET')],
  ['the authority of an absolute target must be that of Host (RFC 9112 section 3.2.2)',
    refusedFor('HOST_MISMATCH')],
  ['Host must be there once and be a valid host (RFC 9112 section 3.2)', refusedFor('BAD_HOST', 'NO_HOST')],
  ['Transfer-Encoding must be exactly `chunked`, once, and not on HTTP/1.0', refusedFor('BAD_CODING')],
  ['obs-fold is refused (RFC 9112 section 5.2)', refusedFor('OBS_FOLD')],
  ['lines end with CRLF, nothing less', refusedFor('BARE_CR_OR_LF')],
  ['Connection must be a list of tokens', refusedFor('BAD_CONNECTION')],
  ['llhttp does not see an option that a tab follows (OWS, RFC 9110 section 5.6.3)', (text, ours, theirs) =>
    /connection:[^\r]*\t/i.test(text) && same({ ...ours, keep: theirs.keep }, theirs)],
  ['more than 100 fields', refusedFor('TOO_MANY_FIELDS')],
  ['HTTP/0.9 and 2.0 lines are refused', refusedFor('BAD_VERSION')],
  ['one empty line before a request is skipped, not more, and only CRLF', (text, ours, theirs) =>
    ours.verdict === 'refused' && /^[\r\n]/.test(text)],
  ['trailer lines are checked like field lines', refusedFor('BAD_TRAILER')],
  ['llhttp does not allow white space before a chunk extension (BWS, RFC 9112 section 7.1.1), or an extension of other bytes than tokens and quoted strings',
    theyRefuse(/CHUNK_SIZE|STRICT|CHUNK_EXTENSIONS/, (text) => /[;\t ]/.test(text))],
  ['llhttp before 9 takes empty field names, and spaces in them', relaxed((text, ours) =>
    ours.why === 'BAD_FIELD_NAME')],
  ['llhttp before 9 takes any byte after CR for the LF', relaxed((text, ours) =>
    (ours.why === 'BAD_CHUNK' || ours.why === 'head') && /\r(?!\n)|[^\r]\n/.test(text))],
]

// ---- the two sides ----

async function oursFor(program, cases) {
  const child = spawn(program, [], { stdio: ['pipe', 'pipe', 'inherit'] })
  const parts = []
  for (const text of cases) {
    const bytes = latin1(text), prefix = Buffer.alloc(4)
    prefix.writeUInt32LE(bytes.length)
    parts.push(prefix, bytes)
  }
  child.stdin.end(Buffer.concat(parts))
  let out = ''
  for await (const chunk of child.stdout) out += chunk
  const lines = out.split('\n').filter(Boolean)
  if (lines.length !== cases.length)
    throw new Error(`parse_verdict gave ${lines.length} verdicts for ${cases.length} cases`)
  return lines.map((line) => {
    const v = JSON.parse(line)
    if (v.fields) v.fields = v.fields.slice(1).map((f) => [f.name, f.value])
    return v
  })
}

function nodeServer() {
  const bySocket = new Map() // remote port -> what was noted for that connection
  const noteOf = (socket) => bySocket.get(socket.remotePort ?? socket.portNoted) ?? {}
  const accepted = (req) => {
    const h = req.headers
    return {
      verdict: 'accepted', method: req.method, target: req.url, minor: req.httpVersionMinor,
      framing: 'transfer-encoding' in h ? 'chunked' : 'content-length' in h ? 'length' : 'none',
      fields: req.rawHeaders.reduce((all, x, i, raw) => (i % 2 ? all : [...all, [x, raw[i + 1]]]), []),
    }
  }
  function onRequest(req, res) {
    const note = noteOf(req.socket)
    if (note.head) return res.end()
    note.head = accepted(req)
    note.req = req
    note.head.keep = res.shouldKeepAlive
    const body = []
    req.on('data', (d) => body.push(d))
    req.on('end', () => {
      note.head.body = Buffer.concat(body).toString('latin1')
      note.whole = true
      res.end()
    })
    req.on('error', () => {}) // the verdict comes from clientError
  }
  const server = http.createServer({ keepAliveTimeout: 1 }, onRequest)
  server.maxHeadersCount = 0
  server.on('connection', (socket) => {
    socket.portNoted = socket.remotePort
    socket.setNoDelay(true)
  })
  server.on('checkContinue', onRequest)
  server.on('checkExpectation', (req, res) => {
    noteOf(req.socket).refused ??= 'EXPECTATION'
    res.writeHead(417).end()
  })
  server.on('connect', (req, socket) => {
    noteOf(socket).head = { ...accepted(req), body: '' }
    noteOf(socket).whole = true
    socket.destroy()
  })
  server.on('clientError', (error, socket) => {
    const note = noteOf(socket)
    if (!note.req?.complete) note.refused ??= error.code
    socket.destroy()
  })
  return { server, bySocket }
}

function theirsFor({ server, bySocket }, text) {
  return new Promise((resolve, reject) => {
    const note = {}
    let answer = ''
    const socket = net.connect(server.address().port, '127.0.0.1', () => {
      bySocket.set(socket.localPort, note)
      note.port = socket.localPort
      socket.end(latin1(text))
    })
    socket.setTimeout(10000, () => socket.destroy(new Error('no end of ' + JSON.stringify(text))))
    socket.on('data', (d) => (answer += d.toString('latin1')))
    socket.on('error', (error) => (error.code === 'ECONNRESET' || error.code === 'EPIPE' ? 0 : reject(error)))
    socket.on('close', () => {
      bySocket.delete(note.port)
      if (note.whole || note.req?.complete) return resolve({ body: '', ...note.head })
      if (note.refused === 'HPE_INVALID_EOF_STATE' || note.refused === 'ECONNRESET')
        return resolve({ verdict: 'incomplete', why: note.head ? 'body' : 'head' })
      if (note.refused) return resolve({ verdict: 'refused', why: note.refused })
      if (note.head) return resolve({ verdict: 'incomplete', why: 'body' })
      if (/^HTTP\/1\.1 4/.test(answer)) return resolve({ verdict: 'refused', why: answer.slice(9, 12) })
      resolve({ verdict: 'incomplete', why: 'head' })
    })
  })
}

async function inParallel(n, items, work) {
  const results = new Array(items.length)
  let next = 0
  const worker = async () => {
    while (next < items.length) {
      const i = next++
      results[i] = await work(items[i])
    }
  }
  await Promise.all(Array.from({ length: n }, worker))
  return results
}

// What of an absolute target is path and query; Node leaves that to others.
function pathOf(target) {
  const m = /^https?:\/\/[^/?]*([^?]*)(?:\?(.*))?$/i.exec(target) ?? /^([^?]*)(?:\?(.*))?$/.exec(target)
  return [m[1] || '/', m[2] ?? '']
}

function same(ours, theirs) {
  if (ours.verdict !== theirs.verdict) return false
  if (ours.verdict !== 'accepted') return true
  const [path, query] = pathOf(theirs.target)
  return ['method', 'target', 'minor', 'framing', 'body'].every((k) => ours[k] === theirs[k]) &&
    ours.path === path && ours.query === query &&
    (theirs.keep === undefined || ours.keep === theirs.keep) &&
    JSON.stringify(ours.fields) === JSON.stringify(theirs.fields)
}

const program = process.argv[2]
if (!program) {
  console.error('usage: node parser.mjs PATH_TO_parse_verdict')
  process.exit(2)
}
const cases = [...new Set([...written, ...seeds, ...seeds.flatMap(mutations), ...pairs(10000)])]
const ours = await oursFor(program, cases)
const node = nodeServer()
await new Promise((resolve) => node.server.listen(0, '127.0.0.1', resolve))
const theirs = await inParallel(16, cases, (text) => theirsFor(node, text))
node.server.close()

const counts = new Map(known.map(([reason]) => [reason, 0]))
let equal = 0, wrong = 0
cases.forEach((text, i) => {
  if (same(ours[i], theirs[i])) return equal++
  const row = known.find(([, when]) => when(text, ours[i], theirs[i]))
  if (row) return counts.set(row[0], counts.get(row[0]) + 1)
  wrong++
  console.log(`DIFFERENT ${JSON.stringify(text)}\n  ours ${JSON.stringify(ours[i])}\n  node ${JSON.stringify(theirs[i])}`)
})
for (const [reason, n] of counts) console.log(`${String(n).padStart(6)}  ${reason}`)
console.log(`${cases.length} cases against node ${process.version}: ${equal} equal, ` +
  `${cases.length - equal - wrong} known differences, ${wrong} unexpected`)
process.exit(wrong ? 1 : 0)
