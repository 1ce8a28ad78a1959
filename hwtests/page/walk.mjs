// Walks through a log's page as a person would, in Chromium, and looks at what it sees. Arguments: the folder of playwright-core,
// the page's URL, and what the log has, as JSON. Ends with 0 when everything was as it should be.
import assert from 'node:assert/strict'
import { createHash } from 'node:crypto'
import { readFileSync } from 'node:fs'
import { createRequire } from 'node:module'

const [folder, base, known] = [process.argv[2], process.argv[3], JSON.parse(process.argv[4])]
const require = createRequire(`${folder}/node_modules/`)
const { chromium } = require('playwright-core')
const axe = readFileSync(require.resolve('axe-core/axe.min.js'), 'utf8')

const browser = await chromium.launch({ executablePath: '/usr/bin/chromium', args: ['--no-sandbox'] })
const pictures = process.env.PAGE_PICTURES

// A context in which everything that should not happen is noted.
async function visit(name, options, walk) {
  const context = await browser.newContext({ baseURL: base, ...options })
  const page = await context.newPage()
  const noted = []
  page.on('dialog', (dialog) => { noted.push(`a dialog: ${dialog.message()}`); dialog.dismiss() })
  page.on('pageerror', (error) => noted.push(`an error: ${error}`))
  page.on('console', (message) => { if (message.type() === 'error') noted.push(`console: ${message.text()}`) })
  page.on('request', (request) => {
    const url = request.url()
    if (!url.startsWith(base) && !url.startsWith('data:,')) noted.push(`a request elsewhere: ${url}`)
  })
  let shots = 0
  const shoot = async () => {
    if (pictures) await page.screenshot({ path: `${pictures}/${name}-${String(++shots).padStart(2, '0')}.png`, fullPage: true })
  }
  await walk(page, shoot)
  // A page that is not there is asked for on purpose.
  const wrong = noted.filter((note) => !note.includes('404'))
  assert.deepEqual(wrong, [], `${name}: ${wrong}`)
  await context.close()
}

const text = (page, selector) => page.locator(selector).innerText()

async function search(page, query) {
  await page.getByRole('searchbox', { name: 'Search the log' }).fill(query)
  await page.keyboard.press('Enter')
  await page.waitForURL((url) => url.searchParams.get('q') === query)
}

// The way through the page that each kind of visitor goes.
async function walk(page, shoot) {
  await page.goto('/')
  assert.match(await page.title(), new RegExp(`^Newest entries – ${known.origin}$`))
  assert.equal(await text(page, 'h1'), 'Newest entries')
  const rows = page.locator('table.entries tbody tr')
  assert.equal(await rows.count(), Math.min(25, known.size))
  await shoot()

  // The newest entry, and its proof.
  await rows.first().getByRole('link').first().click()
  await page.waitForURL(`**/ui/entry/${known.size - 1}`)
  assert.match(await text(page, '.verdict'), /^Yes\. Computed just now/)
  await shoot()
  const hashes = await page.locator('ol.steps .hash').allInnerTexts()
  verify(hashes, known.root)

  // By its neighbours, by its index, by the digest of an artifact, by an identity.
  await page.getByRole('link', { name: /^Entry .* →$/ }).click()
  await page.waitForURL(`**/ui/entry/${known.size - 2}`)
  await search(page, String(known.index))
  assert.equal(await rows.count(), 1)
  for (const hash of known.hashes) {
    await search(page, hash)
    assert.ok((await rows.allInnerTexts()).some((row) => row.includes(String(known.index))), hash)
  }
  await search(page, known.identity)
  await shoot()
  await page.locator('main').getByRole('link', { name: String(known.of), exact: true }).first().click()
  await page.waitForURL(`**/ui/entry/${known.of}`)
  assert.ok((await text(page, 'main')).includes(known.identity))
  assert.match(await text(page, '.verdict'), /^Yes\. Computed just now/)
  await page.locator('summary').first().click()
  await shoot()

  await search(page, 'nobody@nowhere.invalid')
  assert.match(await text(page, 'main'), /Nothing was found/)

  // Older entries, and back.
  if (known.size > 25) {
    await page.goto('/')
    await page.getByRole('link', { name: 'Older →' }).click()
    await page.waitForURL('**/?before=*')
    assert.match(await text(page, 'h1'), /^Entries/)
    await page.getByRole('link', { name: '← Newer' }).click()
  }

  // The checkpoints.
  await page.getByRole('link', { name: 'Checkpoints' }).click()
  await page.waitForURL('**/ui/checkpoints')
  await shoot()
  await page.locator('td a').last().click()
  await page.waitForURL('**/ui/checkpoint/*')
  assert.match(await text(page, '.verdict'), /^(Yes\. Computed just now|It is today's checkpoint)/)
  await shoot()

  const missing = await page.goto('/ui/entry/99999999')
  assert.equal(missing.status(), 404)
  assert.match(await text(page, 'main'), /has no entry 99999999/)
}

// The steps of a proof, computed here again: leaf, then neighbour and result by turns, then root.
function verify(hashes, root) {
  const sha256 = (...parts) => createHash('sha256').update(Buffer.concat(parts)).digest('hex')
  const bytes = (hash) => Buffer.from(hash, 'hex')
  let at = hashes[0]
  for (let i = 1; i + 1 < hashes.length - 1; i += 2) {
    const [one, other, together] = [bytes(at), bytes(hashes[i]), hashes[i + 1]]
    const node = Buffer.of(1)
    assert.ok([sha256(node, one, other), sha256(node, other, one)].includes(together), 'a step does not hold')
    at = together
  }
  assert.equal(at, root)
  assert.equal(hashes.at(-1), root)
}

try {
  await visit('scripts-off', { javaScriptEnabled: false }, walk)
  await visit('dark', { colorScheme: 'dark' }, walk)
  await visit('phone', { viewport: { width: 360, height: 740 }, isMobile: true, hasTouch: true }, walk)

  const paths = ['/', `/ui/entry/${known.index}`, `/ui/entry/${known.of}`, '/ui/search', `/ui/search?q=${encodeURIComponent(known.identity)}`,
    '/ui/checkpoints', `/ui/checkpoint/${known.size}`, ...known.hostile]
  for (const colorScheme of ['light', 'dark']) {
    await visit(`usable-${colorScheme}`, { colorScheme }, async (page, shoot) => {
      for (const path of paths) {
        await page.goto(path)
        await page.evaluate(axe)
        const { violations } = await page.evaluate(() => axe.run())
        assert.deepEqual(violations.map((v) => `${path}: ${v.id}: ${v.nodes.map((n) => n.html).join(' ')}`), [])
        await shoot()
      }
    })
  }
  await visit('narrow', { viewport: { width: 320, height: 640 } }, async (page) => {
    for (const path of paths) {
      await page.goto(path)
      const wide = await page.evaluate(() => document.documentElement.scrollWidth - document.documentElement.clientWidth)
      assert.ok(wide <= 0, `${path} is ${wide} pixels too wide for a small screen`)
    }
  })
  // What somebody wrote into a certificate to have it run here: it is shown, and it is text.
  await visit('hostile', {}, async (page, shoot) => {
    for (const path of known.hostile) {
      await page.goto(path)
      assert.ok((await text(page, 'body')).includes('<script>'), `${path} does not show it`)
      assert.equal(await page.locator('script, img, svg, iframe, object').count(), 0)
      await shoot()
    }
  })
  // The keyboard alone: the first key leads to the content.
  await visit('keyboard', {}, async (page) => {
    await page.goto('/')
    await page.keyboard.press('Tab')
    assert.equal(await page.evaluate(() => document.activeElement.textContent), 'Skip to the content')
    await page.keyboard.press('Enter')
    assert.equal(new URL(page.url()).hash, '#content')
  })
  console.log('everything is as it should be')
} finally {
  await browser.close()
}
