// Draws avatars of one DiceBear style with captions made of each drawing's own traits.
//
//   node draw_avatars.mjs STYLE LABEL COUNT FOLDER [SIZE]
//
// Writes STYLE-0.png ... STYLE-(COUNT-1).png (SIZE x SIZE pixels) and metadata.jsonl, one
// {"file_name", "text"} a line. An avatar depends on its style and number alone, so that a longer
// run begins with the pictures of a shorter one.
import fs from 'node:fs';
import { createAvatar } from '@dicebear/core';
import * as collection from '@dicebear/collection';
import { Resvg } from '@resvg/resvg-js';

const BACKGROUNDS = {
  white: 'ffffff', blue: 'a8c8f0', green: 'b5e0b5', pink: 'f6c6d8',
  yellow: 'f7e7a1', gray: 'c9c9c9', purple: 'd3c2ee', orange: 'f8cfa0',
};
// Coprime to the number of backgrounds: neighbours differ and every colour is used equally often.
const BACKGROUND_STRIDE = 7;

const COLOURS = {
  black: [0, 0, 0], white: [255, 255, 255], gray: [150, 150, 150], red: [200, 40, 40],
  orange: [225, 110, 30], blonde: [225, 195, 120], brown: [100, 60, 30],
  'light brown': [160, 110, 60], pink: [240, 150, 180], purple: [120, 70, 190],
  blue: [80, 120, 220], 'light blue': [140, 210, 230], green: [70, 170, 80],
  teal: [40, 140, 130], yellow: [245, 210, 60],
};
const SKINS = {
  pale: [250, 225, 200], light: [240, 200, 165], tan: [215, 150, 105],
  brown: [160, 105, 65], dark: [100, 60, 40],
};

function rgb(hex) {
  const digits = hex.replace('#', '');
  return [0, 2, 4].map((start) => parseInt(digits.slice(start, start + 2), 16));
}

// The name in `table` whose colour is closest to `hex` (squared distance in RGB).
function nearestName(hex, table) {
  const colour = rgb(hex);
  const distance = (other) => other.reduce((sum, value, k) => sum + (value - colour[k]) ** 2, 0);
  return Object.keys(table).reduce((best, name) =>
    distance(table[name]) < distance(table[best]) ? name : best);
}

// 'shortCombover2' -> 'short combover'; a bare 'variant07' says nothing and becomes ''.
function words(trait) {
  return String(trait)
    .replace(/variant\d+W?\d*/, '')
    .replace(/([a-z])([A-Z])/g, '$1 $2')
    .replace(/\d+/g, '')
    .toLowerCase()
    .trim();
}

function hairTags(style, traits) {
  const drawnHead = style === 'openPeeps' ? traits.head : undefined; // its hair is part of the head
  const hair = traits.hair || drawnHead || traits.top;
  if (!hair) return [];
  const colour = traits.hairColor || traits.headContrastColor;
  const shape = words(hair);
  return [(colour ? `${nearestName(colour, COLOURS)} ` : '')
    + (shape ? `${shape.replace('hair', '').trim()} ` : '') + 'hair'];
}

function faceTags(style, traits) {
  const tags = [];
  const skin = traits.skinColor || traits.baseColor;
  if (traits.rearHair) tags.push(`${words(traits.rearHair)} back hair`);
  if (skin) tags.push(`${nearestName(skin, SKINS)} skin`);
  if (traits.mouth && words(traits.mouth)) tags.push(`${words(traits.mouth)} mouth`);
  if (traits.face && style === 'openPeeps') tags.push(`${words(traits.face)} face`);
  if (traits.eyes && words(traits.eyes)) tags.push(`${words(traits.eyes).replace(' eyes', '')} eyes`);
  return tags;
}

function wornTags(traits) {
  const tags = [];
  const beard = traits.facialHair || traits.beard || traits.mustache;
  if (traits.glasses) tags.push('glasses');
  if (traits.accessories) tags.push(words(traits.accessories) || 'accessory');
  if (beard) tags.push(words(beard) || 'beard');
  if (traits.earrings) tags.push('earrings');
  if (traits.features) tags.push(words(traits.features));
  const colour = traits.clothingColor || traits.clothesColor || traits.shirtColor || traits.bodyColor;
  const garment = traits.clothes ? words(traits.clothes) : 'shirt';
  if (colour) tags.push(`${nearestName(colour, COLOURS)} ${garment}`);
  return tags;
}

function caption(style, label, traits, background) {
  const tags = [`${label} portrait`, ...hairTags(style, traits), ...faceTags(style, traits)];
  return [...tags, ...wornTags(traits), `${background} background`].join(', ');
}

function drawOne(style, label, number, size) {
  const names = Object.keys(BACKGROUNDS);
  const background = names[(number * BACKGROUND_STRIDE + style.length) % names.length];
  const avatar = createAvatar(collection[style], {
    seed: `${style}-${number}`,
    backgroundColor: [BACKGROUNDS[background]],
  });
  const png = new Resvg(avatar.toString(), { fitTo: { mode: 'width', value: size } }).render().asPng();
  return { png, text: caption(style, label, avatar.toJson().extra, background) };
}

function main([style, label, count, folder, size = '64']) {
  if (!folder || !collection[style]) {
    throw new Error('usage: draw_avatars.mjs STYLE LABEL COUNT FOLDER [SIZE], STYLE as DiceBear exports it');
  }
  fs.mkdirSync(folder, { recursive: true });
  const lines = [];
  for (let number = 0; number < Number(count); number += 1) {
    const fileName = `${style}-${number}.png`;
    const { png, text } = drawOne(style, label, number, Number(size));
    fs.writeFileSync(`${folder}/${fileName}`, png);
    lines.push(JSON.stringify({ file_name: fileName, text }));
  }
  fs.writeFileSync(`${folder}/metadata.jsonl`, `${lines.join('\n')}\n`);
}

main(process.argv.slice(2));
