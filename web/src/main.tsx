import { render } from 'preact';
import 'uplot/dist/uPlot.min.css';
import './style.css';
import { Dashboard } from './app';

const root = document.getElementById('app');
if (root) render(<Dashboard />, root);
