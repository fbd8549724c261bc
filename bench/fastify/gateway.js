// The gateway's GetMe for Node: Fastify serves the callers, undici calls the Connect
// methods of auth and users in JSON over HTTP/1.1. It verifies access tokens and caches
// the result, as Gatehouse does, and serialises with a schema. It has no logs, limits,
// validation or metrics.
import { createPublicKey, hkdfSync } from 'node:crypto'
import { createSigner, createVerifier } from 'fast-jwt'
import Fastify from 'fastify'
import { Pool, request } from 'undici'

const { AUTH_URL, USERS_URL, GATEHOUSE_INTERNAL_KEY, GATEHOUSE_PUBLIC_URL, GATEHOUSE_LISTEN, JWKS_URL } = process.env

const [jwk] = (await (await request(JWKS_URL)).body.json()).keys
const verify = createVerifier({
  key: createPublicKey({ key: jwk, format: 'jwk' }).export({ type: 'spki', format: 'pem' }),
  algorithms: ['EdDSA'], allowedIss: GATEHOUSE_PUBLIC_URL, allowedAud: 'gatehouse', cache: 20_000,
})

// service returns a function that calls a service's methods with bff's internal token.
function service(callee, url) {
  const pool = new Pool(url, { connections: 32 })
  const info = `gatehouse internal call v1: bff to ${callee}`
  const key = Buffer.from(hkdfSync('sha256', Buffer.from(GATEHOUSE_INTERNAL_KEY, 'hex'), '', info, 32))
  const sign = createSigner({ key, algorithm: 'HS256', iss: 'bff', aud: callee, expiresIn: 60_000 })
  const headers = { 'content-type': 'application/json', 'connect-protocol-version': '1', authorization: '' }
  const identify = () => { headers.authorization = `Bearer ${sign({})}` }
  identify()
  setInterval(identify, 40_000)
  return async (path, message) => {
    const { statusCode, body } = await pool.request({ path, method: 'POST', headers, body: JSON.stringify(message) })
    const answer = await body.json()
    if (statusCode !== 200) throw new Error(`${path} answered ${statusCode}: ${answer.message}`)
    return answer
  }
}
const auth = service('auth', AUTH_URL)
const users = service('users', USERS_URL)

const text = { type: 'string' }
const object = (properties) => ({ type: 'object', properties })
const answer = object({
  user: object({
    id: text, email: text, emailVerified: { type: 'boolean' }, status: text, roles: { type: 'array', items: text },
    firstName: text, lastName: text, locale: text, etag: text, createTime: text, updateTime: text,
  }),
  sessions: { type: 'array', items: object({
    id: text, createTime: text, lastUsedTime: text, expireTime: text, userAgent: text, ipAddress: text, current: { type: 'boolean' },
  }) },
  security: object({ passwordChangeTime: text, lastSignInTime: text, activeSessions: { type: 'integer' }, level: { type: 'integer' } }),
})

const app = Fastify({ logger: false })
app.get('/readyz', async () => 'ok')
app.post('/bff.v1.AccountService/GetMe', { schema: { response: { 200: answer } } }, async (call) => {
  const { sub, sid } = verify(call.headers.authorization.slice('Bearer '.length))
  const [{ account, security }, { sessions = [] }, { profile }] = await Promise.all([
    auth('/auth.v1.AccountService/GetAccount', { accountId: sub }),
    auth('/auth.v1.SessionService/ListSessions', { accountId: sub }),
    users('/users.v1.ProfileService/GetProfile', { profileId: sub }),
  ])
  for (const session of sessions) session.current = session.id === sid
  const updateTime = [account.updateTime, profile.updateTime].sort().pop()
  const status = account.status.replace('ACCOUNT_', 'USER_')
  return { user: { ...account, ...profile, id: account.id, createTime: account.createTime, updateTime, status }, sessions, security: { ...security, level: 1 } }
})

const [host, port] = GATEHOUSE_LISTEN.split(':')
await app.listen({ host, port: Number(port) })
