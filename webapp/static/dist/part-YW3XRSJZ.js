function p(e,t){if(e.adoptedStyleSheets.find(d=>d.source===t))return;let S=new CSSStyleSheet;S.replaceSync(t),S.source=t,e.adoptedStyleSheets=[...e.adoptedStyleSheets,S]}export{p as a};
