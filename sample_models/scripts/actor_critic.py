"""Actor-critic on an environment of its own, without a loader; it stops when the running reward is high enough."""
# expect broke = []

import argparse
from collections import namedtuple
from itertools import count

import numpy as np
import torch
from torch import nn, optim
from torch.distributions import Categorical
from torch.nn import functional as F

SavedAction = namedtuple("SavedAction", ["log_prob", "value"])


class Corridor:
    """Walk to the right end of a corridor; a wind blows one back now and then."""

    def __init__(self, length=8, seed=0):
        self.length, self.generator = length, np.random.default_rng(seed)

    def reset(self):
        self.place = self.length // 2
        return self._state()

    def step(self, action):
        self.place += 1 if action == 1 else -1
        self.place -= int(self.generator.random() < 0.1)
        done = not 0 < self.place < self.length
        return self._state(), float(self.place >= self.length), done

    def _state(self):
        return np.array([self.place / self.length, 1.0, self.generator.normal()], dtype=np.float32)


class Policy(nn.Module):
    def __init__(self):
        super().__init__()
        self.affine1 = nn.Linear(3, 16)
        self.action_head = nn.Linear(16, 2)
        self.value_head = nn.Linear(16, 1)
        self.saved_actions, self.rewards = [], []

    def forward(self, x):
        x = F.relu(self.affine1(x))
        return F.softmax(self.action_head(x), dim=-1), self.value_head(x)


def select_action(model, state):
    probs, state_value = model(torch.from_numpy(state))
    m = Categorical(probs)
    action = m.sample()
    model.saved_actions.append(SavedAction(m.log_prob(action), state_value))
    return action.item()


def finish_episode(model, optimizer, gamma):
    R, returns = 0.0, []
    for r in model.rewards[::-1]:
        R = r + gamma * R
        returns.insert(0, R)
    returns = torch.tensor(returns)
    returns = (returns - returns.mean()) / (returns.std(unbiased=False) + 1e-6)
    policy_losses, value_losses = [], []
    for (log_prob, value), R in zip(model.saved_actions, returns):
        policy_losses.append(-log_prob * (R - value.item()))
        value_losses.append(F.smooth_l1_loss(value, R.view(1)))
    optimizer.zero_grad()
    loss = torch.stack(policy_losses).sum() + torch.stack(value_losses).sum()
    loss.backward()
    optimizer.step()
    model.rewards.clear()
    model.saved_actions.clear()


def main():
    parser = argparse.ArgumentParser(description="PyTorch actor-critic example")
    parser.add_argument("--gamma", type=float, default=0.99)
    parser.add_argument("--seed", type=int, default=543)
    args = parser.parse_args()
    env = Corridor(seed=args.seed)
    torch.manual_seed(args.seed)
    model = Policy()
    optimizer = optim.Adam(model.parameters(), lr=3e-2)
    running_reward = 0.1
    for i_episode in count(1):
        state, ep_reward = env.reset(), 0.0
        for _ in range(1, 200):
            state, reward, done = env.step(select_action(model, state))
            model.rewards.append(reward)
            ep_reward += reward
            if done:
                break
        running_reward = 0.05 * ep_reward + (1 - 0.05) * running_reward
        finish_episode(model, optimizer, args.gamma)
        if i_episode % 50 == 0:
            print(f"Episode {i_episode}\tAverage reward: {running_reward:.2f}")
        if running_reward > 0.9:
            break


if __name__ == "__main__":
    main()
