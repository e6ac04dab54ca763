# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # 00 · A tour of minires
#
# *About 25 minutes to read, less than a minute to run.*
#
# Somebody shows you a picture and asks what is on it. You do not study every square centimetre: you glance, your eyes go to
# the part that matters, and you answer. In 2017 Fei Wang and colleagues built a neural network that does something of the
# kind, the *Residual Attention Network*. In this course you will build it from one multiplication upwards, and you will not
# have to believe a single formula: every gradient on the way can be checked, and you will check it.
#
# This first notebook is the view from the hill. We shall go quickly, and come back to everything later.
#
# **What you will be able to do**
#
# * make a Tensor, compute with it, and get a derivative out of it;
# * find the derivative of any operation in the source of minires, and read it;
# * check a gradient against the definition of the derivative, and read what a failed check says about the mistake;
# * train a small Residual Attention Network, look at its masks, and *measure* whether they find the object;
# * write an operation of your own with a derivative of your own, and prove to yourself that it is right.
#
# **What you need**: Python, a little NumPy, and the chain rule from school. If you have used PyTorch, many names will look
# familiar. That is on purpose: what you learn here is true there.

# %% tags=["setup"]
import numpy as np

import minires as mr
from minires import functional as F

mr.manual_seed(0)
rng = np.random.default_rng(0)

# %% [markdown]
# ## 1. A number that remembers
#
# A `Tensor` is an array that remembers where it came from. We make one, ask it to keep track, and compute
#
# $$y = x^2 + 3x .$$

# %%
x = mr.tensor(2.0, requires_grad=True)
y = x * x + 3 * x
y

# %% [markdown]
# The value is $2^2 + 3\cdot 2 = 10$, as it should be, and the Tensor adds "from add": the last thing that happened to it was
# an addition. It knows what was added, too, and where those came from, all the way back to `x`. This chain of memories is
# called the *graph*. Walking it backwards gives the derivative, which we know from school: $\mathrm{d}y/\mathrm{d}x = 2x + 3$.

# %%
y.backward()
print("backward says", x.grad.item(), "and school says", 2 * 2.0 + 3)

# %% [markdown]
# With a whole array it is the same. Suppose some numbers $x_i$ should be near their targets $t_i$. We measure how badly they
# miss by the mean squared error, and the derivative tells how the error changes when any one of them moves:
#
# $$L = \frac1n \sum_i (x_i - t_i)^2 , \qquad \frac{\partial L}{\partial x_i} = \frac2n (x_i - t_i).$$
#
# If we take a small step *against* this gradient, again and again, the error shrinks. That is all that training is. A network
# with millions of numbers learns in just the way in which these four do.

# %%
target = mr.tensor([1.0, -2.0, 0.5, 3.0])
x = mr.zeros(4, requires_grad=True)

for step in range(31):
    loss = ((x - target) ** 2).mean()
    if step % 10 == 0:
        print(f"step {step:2}   loss {loss.item():.6f}   x = {x.numpy().round(3)}")
    x.grad = None
    loss.backward()
    with mr.no_grad():
        x[...] = x - 0.5 * x.grad

# %% [markdown]
# ## 2. The rules are in the source, and you can read them
#
# Where did the derivatives come from? Not from a symbolic machine. Each operation comes with a *rule*, derived by hand, that
# turns "how the loss depends on my output" into "how the loss depends on my input". By the chain rule,
#
# $$\frac{\partial L}{\partial x} = \frac{\partial L}{\partial y}\cdot\frac{\partial y}{\partial x} .$$
#
# The first factor arrives from the right, from the operations that came later; minires calls it `dy`. The second factor is the
# operation's own business. Take the *sigmoid*, which squeezes any number into $(0, 1)$ and which will make our masks later on:
#
# $$\sigma(x) = \frac{1}{1 + e^{-x}}, \qquad
#   \sigma'(x) = \frac{e^{-x}}{(1 + e^{-x})^2} = \sigma(x)\,\bigl(1 - \sigma(x)\bigr).$$
#
# (Do derive the last step yourself once; it takes two lines, and is the most used derivative in this course.) Now the source.
# An operation can show you its own:

# %%
print(F.sigmoid.source)

# %% [markdown]
# Two functions. The first computes $\sigma$ (in two ways, one for each sign of $x$, so that $e^x$ never overflows). The second
# is the rule, and it is the formula above, times `dy`.
#
# Look at the rule's parameters: `dy` and `y`. They are more than names. A rule gets what its parameter list asks for, and
# *only that* is kept in memory until it is needed. This rule asks for the output `y`, so the input may be forgotten. A
# network remembers exactly what its rules name, and not a byte more.
#
# All of minires is written in this way: one place for each operation, what it computes, and its rule right underneath.
#
# (Some functions are not operations themselves: `F.conv2d`, `F.max_pool2d`, `F.batch_norm`, `F.interpolate`, `F.cross_entropy` and
# a few more first check their arguments and then call others, such as the private `_conv2d`. These have no `.source`; open the file
# in which they live. The convolution and its rule, for one, are in `minires/functional/convolution.py`.)

# %% [markdown]
# ## 3. Trust, but check
#
# A rule derived by hand is a rule that may be wrong. Fortunately the definition of the derivative needs no cleverness,
#
# $$f'(x) = \lim_{h\to 0} \frac{f(x + h) - f(x)}{h},$$
#
# so we can nudge every input a little, look at what happens to the output, and compare. That is a *gradient check*:

# %%
mr.gradcheck(F.sigmoid, rng.normal(size=(2, 3)))

# %% [markdown]
# All six elements agree, here and at a second, random point nearby, which makes twelve. (The reference is called "complex
# step" here: a nudge in the imaginary direction, which needs no subtraction and is therefore exact to the last digits. A
# later notebook is all about this.)
#
# A check that has never failed has not shown that it can. So let us plant a bug. Below is a sigmoid of our own, with a mistake
# that nearly everybody makes once: the rule returns $\sigma'(x)$ and forgets to multiply by `dy`.

# %%
@mr.op
def forgetful_sigmoid(input: mr.Array) -> mr.Array:
    return 1 / (1 + np.exp(-input))


@forgetful_sigmoid.backward
def _(dy, y):
    return y * (1 - y)  # the bug: where is dy?


report = mr.gradcheck(forgetful_sigmoid, rng.normal(size=(2, 3)))
report

# %% [markdown]
# Caught, and not only that: the report says *what kind* of mistake it is, `ignores_upstream`, and how to mend it. It did not even
# have to compute a derivative. A rule must give 0 if `dy` is 0, and this one does not.
#
# Another mistake that nearly everybody makes once. We know $\sigma' = \sigma\,(1 - \sigma)$, so let us write it down, in a hurry:

# %%
@mr.op
def hasty_sigmoid(input: mr.Array) -> mr.Array:
    return 1 / (1 + np.exp(-input))


@hasty_sigmoid.backward
def _(dy, input):
    return dy * input * (1 - input)  # the bug: this is x (1 − x)


mr.gradcheck(hasty_sigmoid, rng.normal(size=(2, 3)))

# %% [markdown]
# The report names the input, counts the elements that are wrong and shows the worst one: what the rule gives there (`analytic`), what
# it should give (`numeric`), and how far apart the two may be. Nobody had to choose that tolerance; it follows from measured rounding
# errors. The picture shows where it is wrong, and below it the whole *Jacobian*, the table of how each output depends on each input.
# For an operation that works element by element, that is a diagonal. It is one here too, with the wrong numbers on it. Then there is
# the diagnosis: the rule computes $x(1 - x)$, where $y(1 - y)$ is needed.
#
# There are some forty such names. [The checker's page](../docs/gradcheck.md) explains each of them, and how the checker finds out.
#
# Here is something worth remembering. The most obvious way to check a gradient is to sum up the output and call `backward()`.
# Then every element of `dy` is 1, and the first of our two sigmoids, which forgets to multiply by 1, is ... right:

# %%
x = mr.tensor(rng.normal(size=(2, 3)), requires_grad=True)
forgetful_sigmoid(x).sum().backward()

h = 1e-6
nudged = (forgetful_sigmoid(x + h).numpy() - forgetful_sigmoid(x - h).numpy()) / (2 * h)
print("largest difference:", f"{np.abs(x.grad.numpy() - nudged).max():.0e}", "- it looks perfect, and it is wrong")

# %% [markdown]
# That is why `gradcheck` always uses a *random* `dy`. Several well-known teaching frameworks check with ones, and would let
# this sigmoid pass.

# %% [markdown]
# ## 4. A network that has something to ignore
#
# Now for the network. Attention is only worth anything if there is something *not* to attend to, so our pictures are
# **cluttered digits**: one whole handwritten digit at a random place, among fragments of other digits, and noise. The network
# has to say which digit it is. Nobody tells it where the digit is. We know, and will use it later, to mark its work.

# %%
from minires.data import ClutteredDigits
from minires.viz.panels import panels

test = ClutteredDigits(train=False, size=400, seed=1704, clutter=2, with_boxes=True)
examples = [test[i] for i in (14, 3, 7, 5, 26)]
panels(
    {f"a {label}": image for image, label, box in examples},
    boxes={f"a {label}": box for image, label, box in examples},
)

# %% [markdown]
# The orange box is ours; the network never sees it.
#
# A Residual Attention Network is a stack of *attention modules*, and each of these has two branches. The **trunk** computes
# features $F$, just as any network would. Beside it, the **mask branch** first shrinks the image, so that it sees the whole,
# and then enlarges it again, and ends in a sigmoid: a number $M$ between 0 and 1 for every feature at every place. The two
# meet in the formula that gave the paper its name,
#
# $$H = (1 + M)\cdot F .$$
#
# Where the mask is 0, the features pass as they are; where it is 1, they count double. In minires this is one operation.
# You can guess its two derivatives, and then look whether you were right:

# %%
print(F.residual_attention.source)

# %% [markdown]
# $\partial H/\partial F = 1 + M$ and $\partial H/\partial M = F$; both times `dy`. Notebook 10 takes this formula apart.
#
# The network itself is a narrow version of the one in the paper, with two attention modules: same parts, fewer channels.

# %%
from minires import models, nn

net = models.small_attention(widths=(32, 64), depths=(2, 1), stem=16, after=0, t=1)
nn.summary(net, (1, 28, 28), depth=1)

# %% [markdown]
# Training is what we did with four numbers in section 1, with some 51,000 of them, and on a small batch of pictures at a time.
# Three things are new. The loss is the *cross entropy*, which punishes confidence in a wrong answer. The optimiser, AdamW,
# gives every number a step of its own. And the steps grow at first and then become smaller and smaller, which is what the
# schedule does.
#
# This is a short run on pictures with two fragments each, so do not expect a champion. The main job, `python -m minires train`,
# trains a wider network for longer, on pictures with four.

# %%
from minires import optim
from minires.data import DataLoader

epochs = 6
train_batches = DataLoader(ClutteredDigits(size=2000, clutter=2, fresh=True), batch_size=50, shuffle=True)
optimizer = optim.AdamW(net.parameters(), lr=0.02, weight_decay=0.01)
schedule = optim.OneCycleLR(optimizer, max_lr=0.02, total_steps=epochs * len(train_batches), cycle_momentum=False)
history = []

for epoch in range(epochs):
    right = 0
    for images, labels in train_batches:
        optimizer.zero_grad()
        scores = net(images)  # (N, 10)
        loss = F.cross_entropy(scores, labels)
        loss.backward()
        optimizer.step()
        schedule.step()
        history.append(loss.item())
        right += (scores.argmax(1) == labels).sum().item()
    mean_loss = np.mean(history[-len(train_batches) :])
    print(f"epoch {epoch + 1}   loss {mean_loss:.3f}   right on pictures it had never seen before: {right / 2000:.1%}")

# %% [markdown]
# (They are pictures it had never seen before because `fresh=True` draws new ones for every epoch.) Here is how the loss went
# down, step by step. A network that guesses blindly among ten digits has a loss of $\ln 10 \approx 2.3$; the first steps look
# just like that. Then it notices something.

# %%
from minires.viz.lines import lines

steps = np.arange(len(history))
smooth = np.convolve(history, np.full(15, 1 / 15), mode="valid")
lines({"loss while training": {"each step": (steps, history), "mean of 15": (steps[7:-7], smooth)}}, xlabel="step", width=6)

# %% [markdown]
# ## 5. Where does it look?
#
# The network has ten answers to give and was told only whether they were right. Does its attention go to the digit? First we
# look, at the first five test pictures, whatever they are. For each picture: the features $F$ of each module, the mask $M$, and
# what goes on, $(1+M)\cdot F$, averaged over channels. The marks are the places where $|M\cdot F|$ is strongest: the circle in
# module 1, the cross in module 2.

# %%
from minires import viz

images, labels, boxes = test.draw(range(5))
viz.masks(net, images, boxes, labels)

# %% [markdown]
# Pictures persuade easily, so let us *measure* it. Over all 400 test pictures, how often does the strongest point lie inside
# the digit's box (the "pointing game")? And how much of the whole map lies inside? A blind guess would reach the box's share
# of the picture in both.

# %%
from minires.training import evaluate

result = evaluate(net, DataLoader(test, batch_size=100), F.cross_entropy, localise=True)
print(f"test accuracy {result.accuracy:.1%}   (a blind guess: 10 %)\n")
print("                        strongest point    share of the map")
print("                           in the box         in the box")
print(f"a blind guess                {result.area:4.0%}               {result.area:4.0%}")
for number, module in enumerate(result.modules, start=1):
    print(f"module {number}, |F|                {module.pointing['F']:4.0%}               {module.energy['F']:4.0%}")
    print(f"module {number}, |M·F|              {module.pointing['MF']:4.0%}               {module.energy['MF']:4.0%}")

# %% [markdown]
# Nobody told the network where the digits are. It found out because looking there helps.
#
# A careful reader asks: is that the mask's merit, or are the trunk's features $F$ strong there anyway? Compare the rows $|F|$ and
# $|M\cdot F|$. They differ by a few points only: in so short a run the trunk does most of the finding itself. The two were trained together,
# so it is not easy to say who did what. Always look for such a control when somebody shows you an attention map.

# %% [markdown]
# ## 6. One word for the GPU
#
# No operation in minires knows on which device it runs. On the CPU arrays are NumPy's, on an NVIDIA GPU they are CuPy's, and the rules
# stay the same lines. Only the few hot loops exist twice, in NumPy and in CUDA. To move a network or a Tensor you change one word.
#
# Whoever asks for "cuda" on a machine that cannot do it gets a message that says what is missing and what to install:

# %%
where = "cpu"
scores = net.to(where)(mr.tensor(images).to(where))
print("this ran on:", scores.device)

try:
    x = mr.tensor(images).to("cuda")
    net.to("cuda")(x)
except mr.errors.DeviceError as error:
    print(str(error).partition(";")[0])  # what follows is the line that installs it on this machine

# %% [markdown]
# ## 7. Your turn: an operation of your own
#
# Modern networks often use the *SiLU* (or "swish") in place of the ReLU:
#
# $$\operatorname{silu}(x) = x\cdot\sigma(x).$$
#
# It looks like a ReLU from far away, but it is smooth, and dips a little below zero on the left. The forward computation is
# given. **Write its rule.**
#
# 1. On paper: differentiate $x\cdot\sigma(x)$ with the product rule. You know $\sigma'$ from section 2.
# 2. In code: fill in the function below. `dy` is the gradient that arrives, `input` is $x$. Compute with `F.sigmoid` and
#    ordinary operators (a rule may be run on Tensors as well as on arrays, so no `np.` in here).
# 3. Run the check. If it complains, it names the kind of mistake. That is a hint and not yet the answer: look the name up in
#    [the list](../docs/gradcheck.md#the-mistakes-it-knows). If you want to be told in a whole sentence, take `hints="class"` out.
#
# (In the published notebook the solution is filled in: cover it, or delete the lines between the two `###` marks, before you try.)

# %% nbgrader={"grade": false, "grade_id": "silu", "locked": false, "schema_version": 3, "solution": true, "task": false}
import minires as mr
from minires import functional as F


@mr.op
def my_silu(input: mr.Array) -> mr.Array:
    """x·σ(x), element by element."""
    return input * F.sigmoid(input)


@my_silu.backward
def _(dy, input):
    """The gradient with respect to ``input``, given the gradient ``dy`` with respect to the output."""
    ### BEGIN SOLUTION
    s = F.sigmoid(input)
    return dy * (s + input * s * (1 - s))
    ### END SOLUTION

# %% nbgrader={"grade": true, "grade_id": "silu-check", "locked": true, "points": 2, "schema_version": 3, "solution": false, "task": false}
import numpy as np

import minires as mr

numbers = np.random.default_rng(7).normal(size=(3, 4)) * 2
assert np.allclose(my_silu(numbers), numbers / (1 + np.exp(-numbers))), "the forward computation was changed: it is x·σ(x)"
report = mr.gradcheck(my_silu, numbers, hints="class")
print(report)
assert report, "the gradient is not right yet: the report above names the mistake"
assert mr.gradcheck(my_silu, numbers, order=2), "the gradient is right, but its own gradient is not: use no np. in the rule"
print("Well done: your rule is the derivative, and it can itself be differentiated.")

# %% [markdown]
# Your operation is now a full member of the family. It works inside any network, on any device, and because your rule is made
# of operations that have rules themselves, minires can differentiate *it* once more: the last line of the check did.

# %% [markdown]
# ## What you have seen
#
# * A `Tensor` remembers which operation made it; `backward()` walks that memory from the loss to the numbers that caused it.
# * Each operation has one rule, `dy` times its own derivative, and the rule's parameters say what is kept. `F.name.source`
#   shows it, or the file in which it lives.
# * A gradient check compares a rule with the definition of the derivative, and names the mistake. It uses a random `dy`: ones
#   hide mistakes.
# * An attention module weighs its features, $H = (1 + M)\cdot F$; the mask learns by itself where to look, and that can be
#   measured.
#
# **Where next?** [Notebook 10](10_bottom_up_top_down.ipynb) walks through the mask branch step by step, on a photograph and on
# a digit.
#
# **In the paper**: F. Wang, M. Jiang, C. Qian, S. Yang, C. Li, H. Zhang, X. Wang and X. Tang, *Residual Attention Network for
# Image Classification*, CVPR 2017, [arXiv:1704.06904](https://arxiv.org/abs/1704.06904). Section 3 has the attention module,
# section 3.1 the formula $H = (1 + M)\cdot F$ (its equation 3), Figure 2 the architecture.
