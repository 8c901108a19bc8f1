import{a as v}from"./part-YW3XRSJZ.js";import{a as k}from"./part-CHAZTCP7.js";import{a as x}from"./part-HD2BCVNU.js";import{b as m,g as d,h as b}from"./part-GCGWWWOK.js";var w=`/* Marks on a picture and segments of a sound: colours by label (Okabe and Ito, told apart by the colour-blind), drafts dashed. */
[data-k="0"] { --mark: #e69f00; --ink: #000; }
[data-k="1"] { --mark: #56b4e9; --ink: #000; }
[data-k="2"] { --mark: #009e73; --ink: #000; }
[data-k="3"] { --mark: #f0e442; --ink: #000; }
[data-k="4"] { --mark: #0072b2; --ink: #fff; }
[data-k="5"] { --mark: #d55e00; --ink: #000; }
[data-k="6"] { --mark: #cc79a7; --ink: #000; }
[data-k="7"] { --mark: #b8b8b8; --ink: #000; }
.tag { background: var(--mark); color: var(--ink); font: 600 0.75rem/1.35 var(--pico-font-family, sans-serif); padding: 0 0.3rem; border-radius: 0.2rem; white-space: nowrap; box-shadow: 0 0 0 1px #0008; font-variant-numeric: tabular-nums; }
.tag.drafted { box-shadow: none; outline: 1px dashed #000; outline-offset: -1px; }
.choices > button[data-k] > span::before { content: ""; display: inline-block; width: 0.75rem; height: 0.75rem; margin-right: 0.45rem; border-radius: 0.2rem; background: var(--mark); box-shadow: 0 0 0 1px #0008; vertical-align: -0.05rem; }

.marking { position: relative; overflow: hidden; touch-action: none; min-width: 0; min-height: 0; cursor: crosshair; }
.marking.hand { cursor: grab; }
.marking:focus-visible { outline: 2px solid var(--pico-primary); outline-offset: -2px; }
.marking .sheet img { display: block; width: 100%; height: 100%; max-width: none; user-select: none; -webkit-user-drag: none; }
.marking img.tiny { image-rendering: pixelated; }
.marking.broken .sheet { position: static; padding: 1rem; }
.sheet { position: absolute; }
.sheet > .tags { position: absolute; inset: 0; pointer-events: none; }
.tags > .tag { position: absolute; transform: translateY(-100%); }
.tags > .tag.low { transform: none; }
.tags > .tag.selected { z-index: 2; font-size: 0.85rem; }
.tags > .dot { position: absolute; width: 0.9rem; height: 0.9rem; margin: -0.45rem; border-radius: 50%; background: var(--mark); border: 2px solid #fff; box-shadow: 0 0 0 1.5px #000; }
.tags > .dot.drafted { background: transparent; border: 3px dashed var(--mark); }
.tags > .dot + .tag { transform: translate(0.6rem, -120%); }

.still { position: relative; display: grid; place-items: center; overflow: hidden; min-width: 0; min-height: 0; }
.still > .sheet { position: relative; display: block; max-width: 100%; max-height: 100%; }
.still > .sheet > img { display: block; max-width: 100%; max-height: 100%; }
.still svg.shapes { position: absolute; inset: 0; width: 100%; height: 100%; overflow: visible; }
.shapes .halo, .shapes .line { fill: none; vector-effect: non-scaling-stroke; }
.shapes .halo { stroke: #0009; stroke-width: 4px; }
.shapes .line { stroke: var(--mark); stroke-width: 2px; fill: var(--mark); fill-opacity: 0.12; }
.shapes .drafted > .line { stroke-dasharray: 6 4; fill-opacity: 0; }
.strip { position: relative; height: 3.2rem; background: var(--faint); border-radius: 0.3rem; overflow: hidden; margin-top: 0.4rem; }
.strip > .segment { position: absolute; top: 0; bottom: 0; border: 2px solid var(--mark); background: color-mix(in srgb, var(--mark) 25%, transparent); overflow: hidden; }
.strip > .segment.drafted { border-style: dashed; }
.points > .dot.selected { width: 1.15rem; height: 1.15rem; margin: -0.575rem; box-shadow: 0 0 0 1.5px #000, 0 0 0 4px #fffa; z-index: 1; }

.side > .editor-side:not(:empty) { flex: 1 1000 auto; min-height: 9rem; }
.mark-tools { gap: 0.3rem; }
.mark-tools > button[type], .mark-fields > button[type] { padding: 0.2rem 0.55rem; font-size: 0.85rem; }
.mark-count { margin: 0.3rem 0 0.1rem; font-size: 0.9rem; }
.mark-list { margin: 0; padding: 2px; max-height: 8.5rem; overflow-y: auto; border: 1px solid var(--pico-muted-border-color); border-radius: 0.3rem; }
.mark-list[hidden] { display: none; }
.mark-list:focus-visible { outline: 2px solid var(--pico-primary); }
.mark-list > li { list-style: none; margin: 0; padding: 0.15rem 0.35rem; display: flex; gap: 0.45rem; align-items: center; cursor: pointer; border-radius: 0.2rem; font-size: 0.9rem; content-visibility: auto; contain-intrinsic-size: auto 1.6rem; }
.mark-list > li[aria-selected="true"] { background: var(--accept-soft); box-shadow: inset 0 0 0 1px var(--accept); font-weight: 600; }
.mark-name { overflow: hidden; text-overflow: ellipsis; white-space: nowrap; }
.mark-fields { margin-bottom: 0; display: grid; grid-template-columns: repeat(2, minmax(0, 1fr)); gap: 0.3rem 0.5rem; margin-top: 0.4rem; }
.mark-fields:empty { display: none; }
.mark-fields > label { margin: 0; font-size: 0.85rem; }
.mark-fields > label > input { margin: 0; padding: 0.15rem 0.4rem; height: auto; font-size: 0.9rem; font-variant-numeric: tabular-nums; }
.mark-fields > button[type] { margin: 0; }
`;var $=8,f="http://www.w3.org/2000/svg",U=["#e69f00","#56b4e9","#009e73","#f0e442","#0072b2","#d55e00","#cc79a7","#b8b8b8"];v(document,w);var g=class{constructor(t){this.labels=t;let a=x(t);this.tags=new Map(t.map((i,r)=>[i,(a[r]||String(r+1)).toUpperCase()]))}colour(t){return Math.max(0,this.labels.indexOf(t))%$}tag(t){return this.tags.get(t)??"?"}paint(t,a){let i=String(this.colour(a.label));t.dataset.k!==i&&(t.dataset.k=i),t.classList.contains("drafted")!==c(a)&&t.classList.toggle("drafted",c(a))}words(t,a=!1){return[this.tag(t.label),a?t.label:"",c(t)&&t.confidence!=null?b(t.confidence,0):""].filter(Boolean).join(" ")}},c=e=>e.isDraft??(e.confidence??1)<1;function M({shape:e,where:t}){if(e!=="polygon")return t.slice(0,2);let a=Math.min(...t.filter((i,r)=>r%2));return[t[t.indexOf(a)-1],a]}function h(e,t,a=!1){let i=d("span",{class:"tag"},t.words(e,a));return t.paint(i,e),i.classList.toggle("selected",a),y(i,e),i}function y(e,t){let[a,i]=M(t);e.style.left=`${100*a}%`,e.style.top=`${100*i}%`,e.classList.toggle("low",i<.04)}function B(e,t,a,i){let r=new g(i),n=a.marks??[];if(k(t.media))e.replaceChildren(...C(t,n,r));else if(t.media)e.replaceChildren(S(t,n,r));else return!1;return!0}function S(e,t,a){let i=document.createElementNS(f,"svg");for(let[o,s]of[["class","shapes"],["viewBox","0 0 1 1"],["preserveAspectRatio","none"],["aria-hidden","true"]])i.setAttribute(o,s);i.append(...t.filter(({shape:o})=>o!=="point").map(o=>j(o,a)));let r=t.flatMap(o=>o.shape==="point"?[L(o,a),h(o,a)]:[h(o,a)]),n=[`${m("item")} ${e.name??e.item_id??""}`,...t.map(o=>`${o.label}`)].join(", "),l=d("div",{class:"sheet"},d("img",{src:e.media,alt:n}),i,d("div",{class:"tags","aria-hidden":"true"},...r));return d("div",{class:"still"},l)}function L(e,t){let a=d("span",{class:"dot","data-id":e.id});return t.paint(a,e),y(a,e),a}function j(e,t){let a=document.createElementNS(f,"g"),[i,r,n,l]=e.where,o=e.shape==="box"?[i,r,i+n,r,i+n,r+l,i,r+l]:e.where;for(let s of["halo","line"]){let p=document.createElementNS(f,"polygon");p.setAttribute("class",s),p.setAttribute("points",o.join(" ")),a.append(p)}return t.paint(a,e),a}function C(e,t,a){let i=d("audio",{controls:!0,preload:"metadata",src:e.media,"aria-label":`${m("item")} ${e.name??e.item_id??""}`});if(!t.length)return[i];let r=t.map(o=>d("div",{class:"segment"},h({...o,shape:"point",where:[0,0]},a,!0))),n=()=>{let o=Math.max(i.duration||0,...t.map(({where:s})=>s[1]));for(let[s,p]of r.entries()){let[u,O]=t[s].where;a.paint(p,t[s]),Object.assign(p.style,{left:`${100*u/o}%`,width:`${100*(O-u)/o}%`})}};i.addEventListener("loadedmetadata",n),n();let l=t.map(({label:o,where:s})=>m("segment_is",{label:o,from:s[0].toFixed(2),to:s[1].toFixed(2)})).join("; ");return[i,d("div",{class:"strip",role:"img","aria-label":l},...r)]}export{U as a,g as b,c,h as d,y as e,B as f,L as g};
